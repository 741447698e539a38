"""The programs of a simulated container: a handful of busybox's, by what they say and how they end."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from skep.model.errors import InvalidInput


class Life(msgspec.Struct, frozen=True):
    """What a process does: its output at once, its end after so many seconds (None: never by itself)."""

    output: str = ""
    lasts: float | None = 0.0
    code: int = 0


def life_of(name: str, args: tuple[str, ...]) -> Life:
    """Raises InvalidInput: there is no such program."""
    program, *rest = args or ("",)
    match program.rpartition("/")[2]:
        case "true":
            return Life()
        case "false":
            return Life(code=1)
        case "echo":
            return Life(output=" ".join(rest))
        case "sleep":
            return Life(lasts=None if rest == ["infinity"] else float(rest[0]))
        case _:
            raise InvalidInput(f"{name}: the image has no program '{program}'.")


class Session:
    """A program run beside the container's own.  Satisfies `ExecSession` of control."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._ended = asyncio.Event()
        self._killed = False
        self._end = (
            None if life.lasts is None else asyncio.get_running_loop().call_later(life.lasts, self._ended.set)
        )

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._life.output:
            yield 1, f"{self._life.output}\n".encode()
        await self._ended.wait()

    async def write(self, data: bytes) -> None:
        """None of the programs reads."""

    async def close_stdin(self) -> None: ...

    async def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        await self._ended.wait()
        return 128 + 9 if self._killed else self._life.code

    async def close(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._killed = not self._ended.is_set()
        self._ended.set()

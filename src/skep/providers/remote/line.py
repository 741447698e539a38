"""The way to one part of one host: its methods are asked for by name."""

from collections.abc import Callable
from typing import TypeVar

from skep.bus.client import CallClient

T = TypeVar("T")


class Line:
    """`room` is the part of the host: `engine`, `disks`, `fabric`, `images`."""

    def __init__(self, calls: CallClient, host: str, room: str) -> None:
        self._calls = calls
        self._key = f"agent.{host}"
        self._room = room

    async def ask(self, verb: str, returns: type[T], **arguments: object) -> T:
        """Something that only reads."""
        return await self._calls.ask(self._key, f"{self._room}.{verb}", returns, arguments)

    async def tell(self, verb: str, **arguments: object) -> None:
        """Something that changes the host."""
        await self._calls.tell(self._key, f"{self._room}.{verb}", type(None), arguments)

    async def get(
        self,
        verb: str,
        returns: type[T],
        *,
        progress: Callable[[str], None] | None = None,
        **arguments: object,
    ) -> T:
        """Something that changes the host and answers."""
        method = f"{self._room}.{verb}"
        return await self._calls.tell(self._key, method, returns, arguments, progress)

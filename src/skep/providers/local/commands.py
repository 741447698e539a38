"""Running the tools of a host and telling what they said when they refuse.

Used by disks and images.  A command that is cancelled or runs out of time takes its whole process group
with it, so nothing stays behind.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from skep.model.errors import HostFailure


class LineSink(Protocol):
    """Takes one line of output at a time; must not block."""

    def __call__(self, line: str, /) -> None: ...


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended: its exit code (negative: the signal) and the last lines it printed."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


_LONGEST_LINE = 64 * 1024


async def run(*args: str | Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> str:
    """Answer what the command printed on stdout.

    Raises:
        HostFailure: it is not installed or failed; the message has the tool's own last words.
    """
    process = await _spawn(args, environment=environment, merged=False, fed=bool(stdin))
    try:
        output, errors = await _converse(process, stdin)
    finally:
        await _end(process)
    if process.returncode:
        said = errors.decode(errors="replace").strip() or output.decode(errors="replace").strip()
        raise HostFailure(f"{Path(str(args[0])).name} failed: {said[-2000:]}", command=[str(a) for a in args])
    return output.decode(errors="replace")


async def follow(
    args: Sequence[str | Path],
    on_line: LineSink,
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it bounds the process, and TimeoutError tells so
    keep: int = 40,
) -> Outcome:
    """Run the command and hand on each line of its output (stdout and stderr in order) as it comes.

    Raises:
        TimeoutError: it was still running after `timeout` seconds, and was killed.
        HostFailure: it is not installed.
    """
    process = await _spawn(args, environment=environment, merged=True, cwd=cwd)
    lines: deque[str] = deque(maxlen=keep)
    try:
        async with asyncio.timeout(timeout):
            await _read_lines(process, lines, on_line)
            code = await process.wait()
    finally:
        await _end(process)
    return Outcome(code=code, lines=tuple(lines))


async def _converse(process: asyncio.subprocess.Process, stdin: bytes) -> tuple[bytes, bytes]:
    try:
        return await process.communicate(stdin or None)
    except RuntimeError:
        # uvloop's word for a process that ended before it read its input: what it said still counts.
        return await process.communicate()


async def _read_lines(process: asyncio.subprocess.Process, lines: deque[str], on_line: LineSink) -> None:
    assert process.stdout is not None  # noqa: S101 - _spawn asked for a pipe
    rest = b""
    while chunk := await process.stdout.read(64 * 1024):
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        for raw in whole:
            _take(raw, lines, on_line)
    _take(rest, lines, on_line)


def _take(raw: bytes, lines: deque[str], on_line: LineSink) -> None:
    line = raw.decode(errors="replace").rstrip()
    if line:
        lines.append(line)
        on_line(line)


async def _spawn(
    args: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None,
    merged: bool,
    fed: bool = False,
    cwd: Path | None = None,
) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *[str(argument) for argument in args],
            stdin=pipe if fed else asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT if merged else pipe,
            env=None if environment is None else dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostFailure(f"{args[0]} is not installed on this host.") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill whatever the command left in its session; does nothing after an orderly end."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())

"""Where processes of bundles come from, as the worker sees it."""

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from contextlib import suppress

import structlog

from skep.flow.bundles.confinement import python_paths

log = structlog.get_logger(__name__)

PATIENCE = 5.0
"""Seconds that the one that forks has to end."""

_START = (
    "import sys; sys.path += sys.argv[2:]; from skep.flow.bundles.forking import main; main(int(sys.argv[1]))"
)


class Nursling:
    """One process.  `returncode` is None while it lives; below 0: killed by that signal."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        self._ended = asyncio.Event()

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            self._nursery.kill(self)

    def ended(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


class Nursery:
    """Forks processes; the one that does it is started when it is needed, and again when it died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._door: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._asked: deque[asyncio.Future[Nursling]] = deque()
        self._living: dict[int, Nursling] = {}

    async def fork(self, channel: socket.socket, output: int) -> Nursling:
        """A process that takes its orders from the channel and prints to the output.

        Raises:
            OSError: there is none to be had.
        """
        async with self._starting:
            if self._door is None:
                await self._start()
            assert self._door is not None  # noqa: S101  (started just now)
            born: asyncio.Future[Nursling] = asyncio.get_running_loop().create_future()
            self._asked.append(born)
            socket.send_fds(self._door, [b"fork"], [channel.fileno(), output])
        return await born

    def kill(self, nursling: Nursling) -> None:
        if self._door is not None and nursling.pid in self._living:
            with suppress(OSError):
                self._door.send(str(nursling.pid).encode())

    async def close(self) -> None:
        """All that were forked end with it."""
        async with self._starting:
            process = self._process
            self._lost()
            if process is not None:
                await _end(process)

    async def _start(self) -> None:
        door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(_interpreter(), "-I", "-S", "-B", "-c", _START, str(theirs.fileno()), *python_paths()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"MALLOC_ARENA_MAX": "1", "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        door.setblocking(False)
        self._door = door
        asyncio.get_running_loop().add_reader(door, self._hear, door)

    def _hear(self, door: socket.socket) -> None:
        try:
            message = door.recv(64).decode()
        except BlockingIOError:
            return
        except OSError:
            message = ""
        match message.split():
            case ["born", number]:
                nursling = self._living[int(number)] = Nursling(self, int(number))
                born = self._asked.popleft()
                if born.cancelled():
                    self.kill(nursling)
                else:
                    born.set_result(nursling)
            case ["died", number, code]:
                self._living.pop(int(number)).ended(int(code))
            case _:
                if door is self._door:
                    log.warning("flow.nursery_died", processes=len(self._living))
                    self._lost()

    def _lost(self) -> None:
        """With it went everybody whom it had forked."""
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door)
            self._door.close()
        self._door = self._process = None
        living, self._living = self._living, {}
        asked, self._asked = self._asked, deque()
        for nursling in living.values():
            nursling.ended(-signal.SIGKILL)
        for born in asked:
            if not born.cancelled():
                born.set_exception(OSError("the process that forks the others has died"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends by itself once its door is closed."""
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _interpreter() -> str:
    """The interpreter itself, without the environment it may have been called through."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))

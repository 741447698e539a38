"""Where processes of bundles come from, as the worker sees it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress

import structlog

from skep.flow.bundles.confinement import python_paths

log = structlog.get_logger(__name__)

PATIENCE = 5.0
"""Seconds that the one that forks has to end."""

_START = (
    "import sys; sys.path += sys.argv[2:]; import skep.flow; skep.flow.load(); "
    "from skep.flow.bundles.forking import main; main(int(sys.argv[1]))"
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
        self._processes: list[subprocess.Popen[bytes]] = []
        """The one that forks is the last; those before it have died."""
        self._door: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: deque[asyncio.Future[Nursling]] = deque()
        self._living: dict[int, Nursling] = {}

    async def fork(self, channel: socket.socket, output: int) -> Nursling:
        """A process that takes its orders from the channel and prints to the output.

        Raises:
            OSError: there is none to be had.
        """
        door = self._door or self._start()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.add_reader(door, self._hear, door)
        born: asyncio.Future[Nursling] = loop.create_future()
        self._asked.append(born)
        socket.send_fds(door, [b"fork"], [channel.fileno(), output])
        return await born

    def kill(self, nursling: Nursling) -> None:
        if self._door is not None and nursling.pid in self._living:
            with suppress(OSError):
                self._door.send(str(nursling.pid).encode())

    async def close(self) -> None:
        """All that were forked end with it."""
        self._lost()
        processes, self._processes = self._processes, []
        for process in processes:
            await asyncio.to_thread(_end, process)

    def _start(self) -> socket.socket:
        self._processes = [process for process in self._processes if process.poll() is None]
        door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [_interpreter(), "-I", "-S", "-B", "-c", _START, str(theirs.fileno()), *python_paths()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"MALLOC_ARENA_MAX": "1", "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        self._processes.append(process)
        door.setblocking(False)
        self._door, self._loop = door, None
        return door

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
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._door)
            self._door.close()
        self._door = self._loop = None
        living, self._living = self._living, {}
        asked, self._asked = self._asked, deque()
        for nursling in living.values():
            nursling.ended(-signal.SIGKILL)
        for born in asked:
            if not born.cancelled():
                born.set_exception(OSError("the process that forks the others has died"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself once its door is closed."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _interpreter() -> str:
    """The interpreter itself, without the environment it may have been called through."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))

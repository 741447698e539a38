"""Processes started in running containers, with pipes or with a terminal.

`runc exec` stays in the foreground for the whole session and joins the container's namespaces, control group,
seccomp filter and capabilities; its exit code is the process's.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from skep.model.errors import HostFailure
from skep.providers.local.cgroups import Cgroups
from skep.providers.local.processes import ExitWatch, hold, read_pid, send

_BLOCK = 64 * 1024
_QUEUED = 16
"""Blocks read ahead per session: a slow reader slows the process instead of filling our memory."""
_END_OF_INPUT = b"\x04"
_LAST_WORDS = 2.0
_FAILED = 255
_ABSENT, _NOT_EXECUTABLE = 127, 126
"""What a shell and Docker answer when the program cannot be run."""


class LocalExec:
    """One session; satisfies ExecSession.  Make it with `begin`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        container: str,
        cgroups: Cgroups,
        files: "ExecFiles",
        inputs: int | None,
        outputs: dict[int, int],
        terminal: bool,
    ) -> None:
        self._process = process
        self._container = container
        self._cgroups = cgroups
        self._files = files
        self._input = inputs
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._readers = dict(outputs)
        self._paused: set[int] = set()
        for descriptor in [*outputs, *([inputs] if inputs is not None else [])]:
            os.set_blocking(descriptor, False)
        for descriptor in outputs:
            self._loop.add_reader(descriptor, self._readable, descriptor)
        if not outputs:
            self._chunks.put_nowait(None)
        self._watch = ExitWatch(os.pidfd_open(process.pid), self._ended)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self._chunks.get()) is not None:
            self._resume()
            yield chunk
        self._chunks.put_nowait(None)

    async def write(self, data: bytes) -> None:
        """What the process no longer wants to read is dropped, as by a pipe's other end."""
        rest = memoryview(data)
        while rest and self._input is not None:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                await self._writable(self._input)
            except (BrokenPipeError, OSError):
                return

    async def close_stdin(self) -> None:
        if self._terminal:
            await self.write(_END_OF_INPUT)
        elif self._input is not None:
            descriptor, self._input = self._input, None
            os.close(descriptor)

    async def resize(self, columns: int, rows: int) -> None:
        if not self._terminal or self._input is None:
            return
        set_size(self._input, columns, rows)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGWINCH)

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Goes on to its end when the caller is cancelled: a process that nobody reaps would stay."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            await asyncio.wait([self._closing])
            raise

    async def _close(self) -> None:
        try:
            if not self._exit.done():
                await self._kill()
        except BaseException:  # the loop itself is ending
            self._process.kill()
            self._process.wait()
            raise
        self._watch.close()
        for descriptor in list(self._readers):
            self._finish(descriptor)
        if self._input is not None:
            with contextlib.suppress(OSError):
                os.close(self._input)
            self._input = None
        self._files.delete()

    async def _kill(self) -> None:
        """The process inside first: once runc is gone nothing leads to it."""
        pid = await self._pid_inside()
        inside = hold(pid, lambda it: self._cgroups.contains(self._container, it)) if pid else None
        if inside is not None:
            send(inside, signal.SIGKILL)
            os.close(inside)
        elif self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self.wait()
        if not self._exit.done():
            self._process.kill()  # does nothing to one that has been reaped
            await self.wait()

    async def _pid_inside(self) -> int | None:
        """runc notes the pid once the process has begun, which a session may be closed before."""
        deadline = self._loop.time() + _LAST_WORDS
        while (pid := read_pid(self._files.pid)) is None and not self._exit.done():
            if self._loop.time() > deadline:
                return None
            await asyncio.sleep(0.01)
        return pid

    def _readable(self, descriptor: int) -> None:
        try:
            block = os.read(descriptor, _BLOCK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal says that its other side is closed
                raise
            block = b""
        if not block:
            self._finish(descriptor)
            return
        self._chunks.put_nowait((self._readers[descriptor], block))
        if self._chunks.qsize() >= _QUEUED:
            self._loop.remove_reader(descriptor)
            self._paused.add(descriptor)

    def _resume(self) -> None:
        if self._chunks.qsize() < _QUEUED // 2:
            for descriptor in self._paused:
                self._loop.add_reader(descriptor, self._readable, descriptor)
            self._paused.clear()

    def _finish(self, descriptor: int) -> None:
        if self._readers.pop(descriptor, None) is None:
            return
        self._paused.discard(descriptor)
        self._loop.remove_reader(descriptor)
        if descriptor != self._input:
            os.close(descriptor)
        if not self._readers:
            self._chunks.put_nowait(None)

    async def _writable(self, descriptor: int) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(descriptor, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(descriptor)

    def _ended(self) -> None:
        code = self._process.wait()
        code = 128 - code if code < 0 else code
        if code == _FAILED:
            code = self._files.reason_code()
        if not self._exit.done():
            self._exit.set_result(code)


class ExecFiles:
    """The files of one session in the container's bundle: process description, pid file, runc's own log."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)  # no parents: what is being removed stays so
        self.process = folder / f"{name}.json"
        self.pid = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"

    def reason_code(self) -> int:
        """255 may be the process's own code, or runc's for a program it could not run."""
        try:
            said = [json.loads(line).get("msg", "") for line in self.log.read_text().splitlines()]
        except (OSError, ValueError):
            return _FAILED
        text = "\n".join(said)
        if "executable file not found" in text or "no such file or directory" in text:
            return _ABSENT
        return _NOT_EXECUTABLE if "exec failed" in text else _FAILED

    def delete(self) -> None:
        for file in (self.process, self.pid, self.log):
            file.unlink(missing_ok=True)


def begin(
    command: Sequence[str],
    *,
    container: str,
    cgroups: Cgroups,
    files: ExecFiles,
    stdin: bool,
    size: tuple[int, int] | None,
) -> LocalExec:
    """Start the command; with a `size` (columns, rows) it gets a terminal.

    Raises:
        HostFailure: the runtime cannot be run.
    """
    spawn = _with_terminal if size else _with_pipes
    try:
        process, inputs, outputs = spawn(command, stdin, size or (0, 0))
    except OSError as error:
        files.delete()
        raise HostFailure(f"The program {command[0]} cannot be started: {error.strerror}") from error
    return LocalExec(
        process,
        container=container,
        cgroups=cgroups,
        files=files,
        inputs=inputs,
        outputs=outputs,
        terminal=size is not None,
    )


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def set_size(terminal: int, columns: int, rows: int) -> None:
    """TIOCSWINSZ of ioctl_tty(2); sizes beyond 16 bits are cut."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


Spawned = tuple["subprocess.Popen[bytes]", int | None, dict[int, int]]


def _with_terminal(command: Sequence[str], stdin: bool, size: tuple[int, int]) -> Spawned:
    master, slave = os.openpty()
    try:
        set_size(master, *size)
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    except OSError:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return process, master, {master: 1}


def _with_pipes(command: Sequence[str], stdin: bool, size: tuple[int, int]) -> Spawned:
    output, process_output = os.pipe()
    errors, process_errors = os.pipe()
    process_input, inputs = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
    try:
        process = subprocess.Popen(
            command, stdin=process_input, stdout=process_output, stderr=process_errors, start_new_session=True
        )
    except OSError:
        for descriptor in (output, errors, *([inputs] if inputs is not None else [])):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (process_input, process_output, process_errors):
            os.close(descriptor)
    return process, inputs, {output: 1, errors: 2}

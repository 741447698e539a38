"""One process of a bundle, as the worker sees it: from its start to its death."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec
import structlog

from skep.flow.bundles.child import EXHAUSTED
from skep.flow.bundles.confinement import SIGNALLED
from skep.flow.bundles.nursery import Nursery, Nursling
from skep.flow.bundles.protocol import (
    Answer,
    Ask,
    Beat,
    Cancel,
    Described,
    Description,
    Failed,
    FromChild,
    Progress,
    Refused,
    Setup,
    frame,
    read_frame,
)
from skep.flow.bundles.refusals import BundleRefused, NotConfined
from skep.flow.errors import CodeLost
from skep.flow.steps import Context, Retry

log = structlog.get_logger(__name__)

GRACE = 5.0
"""Seconds that a cancelled call has to end before its process is killed."""
_LAST_WORDS = 20
_decode = msgspec.msgpack.Decoder(FromChild).decode


class Calling(msgspec.Struct):
    context: Context[object]
    step: str
    done: asyncio.Future[bytes]


class BundleProcess:
    """Answers calls until it dies; `description` is what its code offers."""

    def __init__(self, name: str, process: Nursling, scratch: Path) -> None:
        self.name = name
        self.description = Description()
        self.calls: dict[int, Calling] = {}
        self.used = asyncio.get_running_loop().time()
        self._process = process
        self._writer: asyncio.StreamWriter | None = None
        self._output: asyncio.ReadTransport | None = None
        self._scratch = scratch
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._exhausted = ""
        self._doomed = False
        self._ids = 0
        self._died: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, nursery: Nursery, name: str, setup: Setup, patience: float) -> Self:
        """Start it, and have it load the code within `patience` seconds.

        Raises:
            BundleRefused: with what is wrong with the code, or why no process can be had for it.
        """
        ours, theirs = socket.socketpair()
        scratch = Path(tempfile.mkdtemp(prefix="skep-bundle-"))
        if setup.confinement is not None:
            setup = msgspec.structs.replace(
                setup, confinement=msgspec.structs.replace(setup.confinement, root=str(scratch))
            )
        output, mouth = os.pipe()
        try:
            with theirs:
                process = await nursery.fork(theirs, mouth)
        except OSError as error:
            ours.close()
            os.close(output)
            scratch.rmdir()
            raise BundleRefused([f"there is no process for it: {error}"]) from error
        finally:
            os.close(mouth)
        self = cls(name, process, scratch)
        try:
            await self._open(ours, output)
            await self._load(setup, patience)
        except BaseException:
            await self.stop()
            raise
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        writer = self._writer
        here = self._process.returncode is None and not self._doomed
        return here and writer is not None and not writer.is_closing()

    def on_death(self, callback: Callable[[], None]) -> None:
        self._died.append(callback)

    async def call(self, step: str, context: Context[object], arguments: Mapping[str, object]) -> msgspec.Raw:
        """The result as JSON.

        A cancelled call ends when the code has heard of it; if it does not listen, its process is killed.

        Raises:
            CodeLost: the process died; nobody knows what became of the call.
            Retry: the step did.
            RuntimeError: the step failed; the message is its error's.
        """
        self._ids += 1
        calling = Calling(context, step, asyncio.get_running_loop().create_future())
        id, self.calls[self._ids] = self._ids, calling  # noqa: A001
        self._send(self._ask(id, calling, arguments))
        try:
            return msgspec.Raw(await asyncio.shield(calling.done))
        except asyncio.CancelledError:
            await self._cancel(id, calling)
            raise
        finally:
            self.calls.pop(id, None)
            if calling.done.done() and not calling.done.cancelled():
                calling.done.exception()
            self.used = asyncio.get_running_loop().time()

    async def stop(self) -> None:
        """Kill it, and whatever it has started."""
        self._died.clear()
        self._process.kill()
        await self._process.wait()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
        if self._output is not None:
            self._output.close()
        self._lose_calls("it was ended")
        shutil.rmtree(self._scratch, ignore_errors=True)

    # what comes and goes

    async def _open(self, channel: socket.socket, output: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=channel)
        loop, said = asyncio.get_running_loop(), asyncio.StreamReader()
        self._output, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(said), os.fdopen(output, "rb", buffering=0)
        )
        self._tasks.append(asyncio.create_task(self._listen(said)))

    async def _load(self, setup: Setup, patience: float) -> None:
        self._send(setup)
        try:
            async with asyncio.timeout(patience):
                content = await read_frame(self._reader)
        except TimeoutError as error:
            raise BundleRefused([f"its code was not loaded after {patience:g} s"]) from error
        message = None if content is None else _decode(content)
        match message:
            case Described(description):
                self.description = description
            case Refused(reasons, confined=False):
                raise NotConfined(reasons)
            case Refused(reasons):
                raise BundleRefused(reasons)
            case _:
                await self._process.wait()
                raise BundleRefused([f"its process died while the code was loaded: {self._cause()}"])
        self._tasks.append(asyncio.create_task(self._serve()))

    async def _serve(self) -> None:
        try:
            while (content := await read_frame(self._reader)) is not None:
                self._hear(_decode(content))
        except (ValueError, msgspec.DecodeError) as error:
            log.error("flow.bundle_garbage", bundle=self.name, error=str(error))
        if self._writer is not None:
            self._writer.close()
        with suppress(TimeoutError):  # what ends by itself says how
            await asyncio.wait_for(self._process.wait(), 1.0)
        self._process.kill()
        await self._process.wait()
        self._bury()

    def _hear(self, message: object) -> None:
        calling = self.calls.get(getattr(message, "id", 0))
        if calling is None or calling.done.done():
            return
        match message:
            case Progress(_, text):
                calling.context.progress(text)
            case Beat():
                calling.context.heartbeat()
            case Answer(_, result):
                calling.done.set_result(result)
            case Failed(_, text, retry=True, after=after):
                calling.done.set_exception(Retry(text, after))
            case Failed(_, text, exhausted=True):
                self._exhausted = calling.step
                calling.done.set_exception(
                    MemoryError(f"{calling.step} used up the memory of {self.name}: {text}")
                )
            case Failed(_, text):
                calling.done.set_exception(RuntimeError(text))

    def _bury(self) -> None:
        cause = self._cause()
        if self._died:
            log.warning("flow.bundle_died", bundle=self.name, cause=cause, calls=len(self.calls))
        self._lose_calls(f"it died: {cause}")
        for callback in self._died:
            callback()

    def _lose_calls(self, cause: str) -> None:
        for calling in self.calls.values():
            if not calling.done.done():
                calling.done.set_exception(CodeLost(f"the process of {self.name} is gone: {cause}"))

    def _cause(self) -> str:
        code = self._process.returncode
        if self._exhausted or code == EXHAUSTED:
            return f"step {self._exhausted} used up its memory" if self._exhausted else "no memory was left"
        words = f"; its last words: {self._last_words[-1]}" if self._last_words else ""
        killed = code is not None and (code < 0 or code > SIGNALLED)
        return (f"killed by signal {abs(code or 0) % SIGNALLED}" if killed else f"exit {code}") + words

    async def _cancel(self, id: int, calling: Calling) -> None:  # noqa: A002
        if calling.done.done():
            return
        self._send(Cancel(id))
        await asyncio.wait([calling.done], timeout=GRACE)
        if not calling.done.done():
            log.error("flow.step_ignores_cancelling", bundle=self.name, step=calling.step)
            self._doomed = True
            self._process.kill()

    def _send(self, message: msgspec.Struct) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    def _ask(self, id: int, calling: Calling, arguments: Mapping[str, object]) -> Ask:  # noqa: A002
        context = calling.context
        return Ask(
            id=id,
            step=calling.step,
            arguments=msgspec.json.encode(arguments),
            run=context.run,
            name=context.step,
            attempt=context.attempt,
            epoch=context.epoch,
            round=context.round,
            undoing=context.undoing,
        )

    async def _listen(self, output: asyncio.StreamReader) -> None:
        """What it prints goes to the log."""
        while (line := await _line(output)) is not None:
            if line:
                self._last_words.append(line)
                log.info("flow.bundle_says", bundle=self.name, line=line)


async def _line(output: asyncio.StreamReader) -> str | None:
    try:
        line = await output.readline()
    except ValueError:  # longer than any line should be
        return ""
    return line.decode("utf-8", "replace").rstrip()[:1000] if line else None

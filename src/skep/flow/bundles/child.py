"""The process of a bundle: confines itself, imports the code, tells what it offers, and answers calls."""

import asyncio
import importlib
import os
import socket
import struct
import sys
import threading
import traceback
from functools import partial
from typing import Any

import msgspec

from skep.flow.bundles.confinement import confine, die_with_parent
from skep.flow.bundles.importing import BundleCode, import_code
from skep.flow.bundles.protocol import (
    Answer,
    Ask,
    Beat,
    Cancel,
    Described,
    Description,
    Failed,
    Progress,
    Refused,
    Setup,
    StepShape,
    ToChild,
    frame,
    read_frame,
)
from skep.flow.bundles.shapes import Table, to_data
from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import describe
from skep.flow.execution.attempt import LARGEST_RESULT, message_of
from skep.flow.steps import Context, Retry, RunId

EXHAUSTED = 86
"""Exit code: there was no memory left."""


def main(descriptor: int) -> None:
    """Serve the worker at the other end of the socket until it closes it."""
    channel = socket.socket(fileno=descriptor)
    setup = _first_message(channel)
    try:
        if setup.confinement is None:
            die_with_parent()
        else:
            confine(setup.confinement, setup.home, channel)
    except OSError as error:
        channel.sendall(frame(Refused((f"its process cannot be confined: {error}",), confined=False)))
        return
    os.environ.update(HOME="/tmp", TMPDIR="/tmp", PATH="/usr/bin:/bin", LANG="C.UTF-8")  # noqa: S108
    _set_path(setup)
    code = import_code(importlib.import_module, setup.modules, setup.types, setup.prefix, setup.home)
    description = None if code.reasons else _describe(code)
    if code.reasons or description is None:
        channel.sendall(frame(Refused(tuple(code.reasons))))
        return
    channel.sendall(frame(Described(description)))
    asyncio.run(_Server(code.steps).serve(channel))


def _first_message(channel: socket.socket) -> Setup:
    (length,) = struct.unpack(">I", channel.recv(4, socket.MSG_WAITALL))
    return msgspec.msgpack.decode(channel.recv(length, socket.MSG_WAITALL), type=Setup)


def _set_path(setup: Setup) -> None:
    """The bundle, its requirements, the standard library; of the worker's packages what is imported."""
    standard = [path for path in sys.path if path.startswith(sys.base_prefix) and "-packages" not in path]
    own = [setup.home, *([setup.packages] if setup.packages else [])]
    sys.path[:] = [*own, *standard]
    importlib.invalidate_caches()


def _describe(code: BundleCode) -> Description | None:
    table: Table = {}
    steps: list[StepShape] = []
    types = {}
    for name, item in code.steps.items():
        try:
            steps.append(_shape(name, item, table))
        except TypeError as error:
            code.reasons.append(f"step {name}: {error}")
    for name, hint in code.types.items():
        try:
            types[name] = to_data(hint, table)
        except TypeError as error:
            code.reasons.append(f"type {name}: {error}")
    return Description(tuple(steps), types, table)


def _shape(name: str, code: Code, table: Table) -> StepShape:
    step = code.step
    return StepShape(
        name=name,
        kind=code.kind,
        retry=step.retry,
        timeout=step.timeout,
        heartbeat=step.heartbeat,
        undo=step.undo_do is not None,
        parameters={key: to_data(hint, table) for key, hint in code.parameters.items()},
        required=code.required,
        returns=to_data(code.returns, table),
    )


class _Server:
    """Answers calls as they come, many at a time."""

    def __init__(self, steps: dict[str, Code]) -> None:
        self._steps = steps
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._home = threading.get_ident()

    async def serve(self, channel: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        reader, self._writer = await asyncio.open_connection(sock=channel)
        decode = msgspec.msgpack.Decoder(ToChild).decode
        while (content := await read_frame(reader)) is not None:
            message = decode(content)
            if isinstance(message, Cancel):
                if task := self._calls.get(message.id):
                    task.cancel()
            else:
                task = self._loop.create_task(self._answer(message))
                self._calls[message.id] = task
                task.add_done_callback(partial(self._answered, message.id))
            del message, content  # they may be large
        os._exit(0)  # nobody is there any more: threads of the bundle must not keep the process

    def _answered(self, id: int, _task: asyncio.Task[None]) -> None:  # noqa: A002
        self._calls.pop(id, None)

    async def _answer(self, ask: Ask) -> None:
        try:
            answer = await self._call(ask)
        except asyncio.CancelledError:
            answer = Failed(ask.id, "cancelled")
        except MemoryError:
            answer = Failed(ask.id, "there was no memory left", exhausted=True)
        except Retry as error:
            answer = Failed(ask.id, str(error), retry=True, after=error.after)
        except Exception as error:
            traceback.print_exc()
            answer = Failed(ask.id, message_of(error))
        self._send(answer)
        if isinstance(answer, Failed) and answer.exhausted:
            await self._writer.drain()
            os._exit(EXHAUSTED)

    async def _call(self, ask: Ask) -> Answer | Failed:
        code = self._steps[ask.step]
        context: Context[Any] = Context(
            env=None,
            run=RunId(ask.run),
            step=ask.name,
            attempt=ask.attempt,
            epoch=ask.epoch,
            undoing=ask.undoing,
            report=lambda message: self._send(Progress(ask.id, message)),
            beat=lambda: self._send(Beat(ask.id)),
            round=ask.round,
        )
        given = msgspec.json.decode(ask.arguments)
        arguments = {name: msgspec.convert(value, code.parameters[name]) for name, value in given.items()}
        if ask.undoing:
            if code.step.undo_do is not None:
                await code.step.undo_do(context, **arguments)
            return Answer(ask.id, b"null")
        return _checked(ask, code, await code.step.do(context, **arguments))

    def _send(self, message: Answer | Failed | Progress | Beat) -> None:
        """Steps may have threads of their own."""
        if threading.get_ident() == self._home:
            self._writer.write(frame(message))
        else:
            self._loop.call_soon_threadsafe(self._writer.write, frame(message))


def _checked(ask: Ask, code: Code, value: object) -> Answer | Failed:
    try:
        result = msgspec.json.encode(value)
        code.decode(result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        wanted = describe(code.returns)
        return Failed(ask.id, f"returned {type(value).__name__}, which is not {wanted}: {error}")
    if len(result) > LARGEST_RESULT:
        return Failed(ask.id, f"returned {len(result):,} bytes of JSON, {LARGEST_RESULT:,} are the most")
    return Answer(ask.id, result)

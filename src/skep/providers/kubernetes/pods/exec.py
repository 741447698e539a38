"""Commands in running containers, over a WebSocket.

Format: the channels of https://pkg.go.dev/k8s.io/apimachinery/pkg/util/remotecommand; version 5 adds the end
of the input to version 4.
"""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import httpx2

from skep.model.errors import HostFailure, SkepError, Unsupported
from skep.model.host import ExecSpec
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.refusals import translated
from skep.providers.kubernetes.pods.templates import CONTAINER

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_ENDS_INPUT = "v5.channel.k8s.io"
_PROTOCOLS = [_ENDS_INPUT, "v4.channel.k8s.io"]
_PIECE = 64 * 1024
"""Bytes of input in one message: one of 1 MiB was seen to hang in the cluster."""
_NOT_FOUND, _NOT_RUNNABLE = 127, 126


class PodExec:
    """Satisfies control's `ExecSession`.  The connection lives in a task of its own, whoever uses it."""

    def __init__(self, name: str, connection: AbstractAsyncContextManager[Any]) -> None:
        loop = asyncio.get_running_loop()
        self._name = name
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(maxsize=64)
        self._socket: asyncio.Future[Any] = loop.create_future()
        self._code: asyncio.Future[int] = loop.create_future()
        self._task = asyncio.create_task(self._run(connection))

    @classmethod
    async def open(cls, cluster: Cluster, namespace: str, pod: str, spec: ExecSpec) -> "PodExec":
        """Raises Unsupported: it is to be another user than the container's."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        asked: list[tuple[str, str | int | float | bool | None]] = [
            ("container", CONTAINER),
            ("stdin", str(spec.stdin).lower()),
            ("stdout", "true"),
            ("stderr", str(not spec.tty).lower()),
            ("tty", str(spec.tty).lower()),
            *(("command", word) for word in command(spec)),
        ]
        # A WebSocket does not end for being silent.
        connection = cluster.http.websocket(
            path, params=httpx2.QueryParams(asked), subprotocols=_PROTOCOLS, timeout=None
        )
        session = cls(f"run a command in {pod}", connection)
        try:
            await asyncio.shield(session._socket)
        except BaseException:
            await session.close()
            raise
        if spec.tty:
            await session.resize(spec.columns, spec.rows)
        return session

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            await self._send(_STDIN, data[start : start + _PIECE])

    async def close_stdin(self) -> None:
        """Raises Unsupported: the cluster is too old to tell a program that its input has ended."""
        if self._socket.result().subprotocol != _ENDS_INPUT:
            raise Unsupported(
                "This cluster cannot tell a program that its input has ended, as 1.30 can: give it none "
                "('skep exec --no-stdin')."
            )
        await self._send(_CLOSE, bytes((_STDIN,)))

    async def resize(self, columns: int, rows: int) -> None:
        await self._send(_RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """The program may go on if it does not notice that nobody is there any more."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for future in (self._socket, self._code):
            future.cancel()

    async def _send(self, channel: int, data: bytes) -> None:
        if self._code.done():
            return
        with suppress(Exception):  # what has ended takes nothing any more
            await self._socket.result().send_bytes(bytes((channel,)) + data)

    async def _run(self, connection: AbstractAsyncContextManager[Any]) -> None:
        try:
            async with connection as socket:
                self._socket.set_result(socket)
                while not self._code.done():
                    message = await socket.receive_bytes()
                    await self._take(message[0], message[1:])
        except Exception as error:
            self._fail(error)
            await self._chunks.put(None)  # whoever reads on, however far behind
        finally:
            with suppress(asyncio.QueueFull):
                self._chunks.put_nowait(None)

    def _fail(self, error: Exception) -> None:
        """Whoever waits hears of it; perhaps nobody does."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        for future in (self._socket, self._code):
            if not future.done():
                future.set_exception(_told(error, self._name))
                future.exception()

    async def _take(self, channel: int, data: bytes) -> None:
        if channel in (_STDOUT, _STDERR) and data:
            await self._chunks.put((channel, data))
        elif channel == _ERROR:
            await self._chunks.put(None)
            code = exit_code(json.loads(data))
            if isinstance(code, str):
                self._code.set_exception(HostFailure(code))
                self._code.exception()
            else:
                self._code.set_result(code)


def _told(error: Exception, what: str) -> SkepError:
    response = getattr(error, "response", None)  # of an upgrade that was refused
    if isinstance(response, httpx2.Response):
        return translated(
            httpx2.HTTPStatusError(str(error), request=response.request, response=response), what
        )
    return translated(error, what)


def command(spec: ExecSpec) -> list[str]:
    """Kubernetes runs commands as the container is; what differs is done by a shell of the image.

    Raises:
        Unsupported: it is to be another user.
    """
    if spec.user:
        raise Unsupported("In a cluster commands run as the user of the container; leave the user out.")
    if not spec.environment and spec.working_dir is None:
        return list(spec.args)
    lines = [] if spec.working_dir is None else [f"cd {shlex.quote(spec.working_dir)} || exit 126"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in spec.environment.items()]
    return ["/bin/sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh", *spec.args]


def exit_code(status: dict[str, Any]) -> int | str:
    """What the status channel says; words if it is no exit code."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and cause.get("message", "").isdecimal():
            return int(cause["message"])
    message: str = status.get("message") or status.get("reason") or "The command failed."
    if "not found" in message or "no such file" in message:
        return _NOT_FOUND
    return _NOT_RUNNABLE if "permission denied" in message else message

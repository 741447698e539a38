"""A server that answers as it is told, over real connections: what a cluster does on its bad days."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lightkube.config.kubeconfig import SingleConfig

from skep.providers.kubernetes.client import access

Answer = Callable[[asyncio.StreamWriter], None]
"""Writes it; the connection is closed afterwards."""


class ScriptedServer:
    """Answers requests one after the other; the last answer is kept open until the server ends."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        """`GET /api/v1/pods` with what follows it."""
        self.bodies: list[Any] = []
        """What each of them said; None: nothing."""
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n")).decode().split(" ")
        headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(headers.partition("content-length:")[2].split("\r\n")[0] or 0)
        self.bodies.append(json.loads(await reader.readexactly(length)) if length else None)
        url = urlsplit(target)
        self.asked.append((f"{method} {url.path}", {k: v[0] for k, v in parse_qs(url.query).items()}))
        answer = self._answers.pop(0) if self._answers else None
        if answer is None:
            await reader.read()  # until the client goes away
        else:
            answer(writer)
        writer.close()

    def config(self) -> SingleConfig:
        document = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        return access.read(json.dumps(document))


@asynccontextmanager
async def serve(*answers: Answer) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer(*answers)
    server = await asyncio.start_server(scripted.talk, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    async with server:
        yield scripted


def document(body: Any, code: int = 200, **headers: str) -> Answer:
    raw = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {code} X", "Content-Type: application/json", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda writer: writer.write("\r\n".join([*lines, "", ""]).encode() + raw)


def bare(code: int) -> Answer:
    """As a proxy in front of a cluster says it: without a document."""
    return lambda writer: writer.write(f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n".encode())


def status(code: int, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message, **more}


def pods(*names: str, version: str) -> Answer:
    """A list of them."""
    return document({"metadata": {"resourceVersion": version}, "items": [pod(name) for name in names]})


def events(*told: tuple[str, Any], cut: bool = False) -> Answer:
    """A watch with these, which ends well, or, `cut`, in the middle of an event."""
    lines = b"".join(json.dumps({"type": verb, "object": thing}).encode() + b"\n" for verb, thing in told)
    chunk = f"{len(lines):x}\r\n".encode() + lines + b"\r\n" if lines else b""
    end = b'ff\r\n{"type": "MODI' if cut else b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return lambda writer: writer.write(head + chunk + end)


def pod(name: str, version: str = "1") -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "n", "resourceVersion": version}}


def bookmark(version: str) -> tuple[str, Any]:
    return "BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": version}}

"""A server that lists what it was given, tells of no change, and refuses as RBAC does what a role lacks.

What is applied is written down, and forgotten.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lightkube.config.kubeconfig import SingleConfig
from tests.providers.kubernetes.scripted import document, status

from skep.providers.kubernetes.client import access

GROUPS = (
    "networking.k8s.io/v1",
    "discovery.k8s.io/v1",
    "gateway.networking.k8s.io/v1",
    "policy/v1",
    "snapshot.storage.k8s.io/v1",
    "crd.projectcalico.org/v1",
)
WATCH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Ruled:
    """`denied`: paths that may not be read, changed while it runs; `objects`: by the path of their list."""

    def __init__(self, denied: set[str], objects: dict[str, list[dict[str, Any]]]) -> None:
        self.denied = denied
        self.objects = objects
        self.applied: list[tuple[str, str]] = []
        """Kind and name."""
        self.port = 0

    def config(self) -> SingleConfig:
        return access.read(self.kubeconfig())

    def kubeconfig(self) -> str:
        return json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # a client that ends asks for nothing more
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n")).decode().split(" ")
        headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        path, _, query = target.partition("?")
        if path in self.denied:
            said = f'User "skep" cannot list resource "{path.rpartition("/")[2]}" at the cluster scope'
            document(status(403, said), 403)(writer)
        elif "watch=true" in query:
            writer.write(WATCH)
            await reader.read()  # until the client goes away
        elif path == "/apis":
            document({"groups": [{"versions": [{"groupVersion": one} for one in GROUPS]}]})(writer)
        elif method == "DELETE":
            document({"kind": "Status", "status": "Success"})(writer)
        elif method == "GET":
            self._read(path, writer)
        elif method == "PATCH":
            length = int(headers.partition("content-length:")[2].split("\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            self.applied.append((body["kind"], body["metadata"]["name"]))
            document(body)(writer)
        else:
            document(status(405), 405)(writer)

    def _read(self, path: str, writer: asyncio.StreamWriter) -> None:
        where, _, name = path.rpartition("/")
        one = next((o for o in self.objects.get(where, ()) if o["metadata"]["name"] == name), None)
        found = {"metadata": {"resourceVersion": "1"}, "items": self.objects.get(path, [])}
        document(found if one is None else one)(writer)


@asynccontextmanager
async def ruled(denied: set[str], objects: dict[str, list[dict[str, Any]]]) -> AsyncIterator[Ruled]:
    found = Ruled(denied, objects)
    server = await asyncio.start_server(found.talk, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found

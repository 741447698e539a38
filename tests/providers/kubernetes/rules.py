"""A server that lists what it was given, tells of what changes, and refuses as RBAC does what a role lacks.

What is applied is written down, and forgotten.
"""

import asyncio
import contextlib
import json
from collections import defaultdict
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
        self.managed: set[tuple[str, str]] = set()
        """What others manage fields of, until it is applied with force."""
        self.failing: set[tuple[str, str]] = set()
        """What is refused for what it says."""
        self.pause = 0.0
        """Seconds until it answers what is applied."""
        self.news: dict[str, asyncio.Queue[tuple[str, dict[str, Any]]]] = defaultdict(asyncio.Queue)
        """By the path of the list: verbs (`DELETED`) and objects that a watch tells."""
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
            await self._watch(path, reader, writer)
        elif path == "/apis":
            document({"groups": [{"versions": [{"groupVersion": one} for one in GROUPS]}]})(writer)
        elif method == "DELETE":
            document({"kind": "Status", "status": "Success"})(writer)
        elif method == "GET":
            self._read(path, writer)
        elif method == "PATCH":
            length = int(headers.partition("content-length:")[2].split("\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            await asyncio.sleep(self.pause)
            self._patch(path, query, body, writer)
        elif path.endswith("/selfsubjectaccessreviews"):
            document({"spec": {}, "status": {"allowed": True}})(writer)
        else:
            document(status(405), 405)(writer)

    async def _watch(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WATCH)
        gone = asyncio.create_task(reader.read())
        while not gone.done():
            news = asyncio.create_task(self.news[path].get())
            await asyncio.wait({gone, news}, return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                news.cancel()
                break
            verb, thing = news.result()
            line = json.dumps({"type": verb, "object": thing}).encode() + b"\n"
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _patch(self, path: str, query: str, body: Any, writer: asyncio.StreamWriter) -> None:
        """An apply is answered with what was applied, and what others have added."""
        name = path.rpartition("/")[2]
        if isinstance(body, list):
            self.applied.append(("spec", name))
            document({"metadata": {"name": name, "uid": "u"}, "spec": body[0]["value"]})(writer)
            return
        thing = (body["kind"], name)
        if thing in self.managed and "force=true" not in query:
            held = {"reason": "FieldManagerConflict", "field": ".spec", "message": 'conflict with "kubectl"'}
            document(status(409, "Apply failed", details={"causes": [held]}), 409)(writer)
            return
        if thing in self.failing:
            document(status(422), 422)(writer)
            return
        self.managed.discard(thing)
        self.applied.append(thing)
        there = (one for known in self.objects.values() for one in known)
        mine = (one for one in there if (one.get("kind"), one["metadata"]["name"]) == thing)
        document(merged(next(mine, {}), body) | {"metadata": body["metadata"] | {"uid": "u"}})(writer)

    def _read(self, path: str, writer: asyncio.StreamWriter) -> None:
        where, _, name = path.rpartition("/")
        one = next((o for o in self.objects.get(where, ()) if o["metadata"]["name"] == name), None)
        found = {"metadata": {"resourceVersion": "1"}, "items": self.objects.get(path, [])}
        document(found if one is None else one)(writer)


def merged(there: Any, applied: Any) -> Any:
    if not (isinstance(there, dict) and isinstance(applied, dict)):
        return applied
    return there | {key: merged(there.get(key), value) for key, value in applied.items()}


@asynccontextmanager
async def ruled(denied: set[str], objects: dict[str, list[dict[str, Any]]]) -> AsyncIterator[Ruled]:
    found = Ruled(denied, objects)
    server = await asyncio.start_server(found.talk, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found

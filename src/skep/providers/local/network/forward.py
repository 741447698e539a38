"""Questions about the world outside, asked of the host's own name servers.

Every question has a socket of its own (a source port nobody can guess) in the host's namespace.  How many a
tenant's container may have under way is bounded, so that none can use up the host's sockets.
"""

import asyncio
import secrets
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from skep.model.errors import Unavailable
from skep.providers.local.network.namespaces import Namespaces

_RESOLV = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def host_nameservers(files: tuple[Path, ...] = _RESOLV) -> tuple[str, ...]:
    """The name servers the host uses; those on loopback (a local cache) only where it has no other."""
    found = [server for file in files if file.exists() for server in _nameservers(file.read_text())]
    return tuple(dict.fromkeys([s for s in found if not ip_address(s).is_loopback] or found))


def _nameservers(text: str) -> list[str]:
    rows = [line.split() for line in text.splitlines()]
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver" and _is_address(row[1])]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Forwarder:
    """Passes questions to the upstream servers, in turn until one answers."""

    def __init__(
        self,
        namespaces: Namespaces,
        upstream: tuple[str, ...],
        *,
        timeout: float = 2.0,
        per_asker: int = 64,
        total: int = 1024,
    ) -> None:
        self._namespaces = namespaces
        self._upstream = upstream
        self._timeout = timeout
        self._per_asker = per_asker
        self._total = total
        self._under_way: Counter[Hashable] = Counter()

    @asynccontextmanager
    async def turn(self, asker: Hashable) -> AsyncIterator[bool]:
        """Whether the asker may have one more question under way."""
        allowed = self._under_way[asker] < self._per_asker and self._under_way.total() < self._total
        self._under_way[asker] += allowed
        try:
            yield allowed
        finally:
            self._under_way[asker] -= allowed
            if not self._under_way[asker]:
                del self._under_way[asker]

    async def ask(self, question: bytes, *, stream: bool) -> bytes:
        """The answer with the question's id, over TCP (`stream`) or UDP.  Raises Unavailable."""
        hidden = secrets.token_bytes(2) + question[2:]
        exchange = self._over_tcp if stream else self._over_udp
        for server in self._upstream * 2:
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await exchange(server, hidden)
                return question[:2] + answer[2:]
            except (OSError, TimeoutError, EOFError):
                continue
        raise Unavailable("No upstream name server answers.")

    async def _over_udp(self, server: str, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with await self._socket(server, socket.SOCK_DGRAM) as upstream:
            await loop.sock_connect(upstream, (server, 53))
            await loop.sock_sendall(upstream, question)
            while True:
                answer = await loop.sock_recv(upstream, 65535)
                if answers(question, answer):
                    return answer

    async def _over_tcp(self, server: str, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        upstream = await self._socket(server, socket.SOCK_STREAM)
        try:
            await loop.sock_connect(upstream, (server, 53))
            reader, writer = await asyncio.open_connection(sock=upstream)
        except BaseException:
            upstream.close()
            raise
        try:
            writer.write(struct.pack("!H", len(question)) + question)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
        finally:
            writer.close()
        if not answers(question, answer):
            raise OSError("the answer is to another question")
        return answer

    async def _socket(self, server: str, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        made = await self._namespaces.on_host(lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC))
        made.setblocking(False)
        return made


def answers(question: bytes, answer: bytes) -> bool:
    """Whether this is a response with the question's id (RFC 1035, section 4.1.1)."""
    return len(answer) >= 12 and answer[:2] == question[:2] and bool(answer[2] & 0x80)

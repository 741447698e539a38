"""The resolver of a network, on its gateway address: names of the network, and the world outside.

It serves UDP and TCP on sockets that were made inside the router namespace.  What is not DNS gets no answer.
"""

import asyncio
import random
import re
import socket
import struct
from collections import Counter
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from dnslib import AAAA, CLASS, EDNS0, PTR, QTYPE, RCODE, RR, A, DNSError, DNSRecord

from skep.model.errors import Unavailable
from skep.model.host import NetworkConfig
from skep.providers.local.network import wire
from skep.providers.local.network.directory import Directory
from skep.providers.local.network.forward import Forwarder
from skep.providers.local.network.namespaces import Namespaces, identity

TTL = 5
_UDP_SIZE = 1232  # what passes everywhere unfragmented: dnsflagday.net/2020
_ANY_CLASS = 255  # RFC 1035, section 3.2.5
_IDLE = 10.0
_DIGITS = re.compile("[0-9a-f]{32}")
_CONNECTIONS_PER_ASKER = 32

log = structlog.get_logger()


def parse(packet: bytes) -> DNSRecord | None:
    """The question in the packet; None: it holds none, or not exactly one."""
    try:
        query = DNSRecord.parse(packet)
    except (DNSError, ValueError, IndexError, struct.error, KeyError, TypeError, UnicodeError):
        return None
    return query if len(query.questions) == 1 and not query.header.qr else None


def answer(
    query: DNSRecord, asker: IPv4Address, network: NetworkConfig, directory: Directory
) -> DNSRecord | None:
    """What the network itself knows; None: ask the world."""
    name, kind = str(query.q.qname).rstrip(".").lower(), query.q.qtype
    if query.header.opcode:
        return _empty(query, RCODE.NOTIMP)
    if query.q.qclass not in (CLASS.IN, _ANY_CLASS):
        return _empty(query, RCODE.REFUSED)
    if (found := _reversed(name)) is not None and network.home(found):
        return _pointer(query, directory.reverse(found))
    if (found6 := _reversed6(name)) is not None and network.ipv6 and found6 in network.ipv6.cidr:
        return _pointer(query, directory.reverse6(found6))
    addresses = directory.resolve(asker, name)
    if addresses:
        return _addresses(query, addresses, directory.beside(asker, addresses), kind)
    if addresses is not None or "." not in name or network.internal:
        return _empty(query, RCODE.NXDOMAIN)
    return None


def usual_answer(
    packet: bytes, asker: IPv4Address, network: NetworkConfig, directory: Directory
) -> bytes | None:
    """What `answer` says to the usual question, sooner; None: it is not usual, or not for us to answer."""
    asked = wire.question(packet)
    if asked is None or asked.name.endswith(".arpa"):
        return None
    addresses = directory.resolve(asker, asked.name)
    if addresses:
        beside = directory.beside(asker, addresses) if asked.kind == wire.AAAA else ()
        found = addresses if asked.kind == wire.A else beside
        return wire.answer(asked, random.sample(found, len(found)), TTL)
    if addresses is not None or "." not in asked.name or network.internal:
        return wire.missing(asked)
    return None


def _addresses(
    query: DNSRecord, addresses: tuple[IPv4Address, ...], beside: tuple[IPv6Address, ...], kind: int
) -> DNSRecord:
    reply = _empty(query, RCODE.NOERROR)
    if kind in (QTYPE.AAAA, QTYPE.ANY):
        for other in random.sample(beside, len(beside)):
            reply.add_answer(RR(query.q.qname, QTYPE.AAAA, ttl=TTL, rdata=AAAA(str(other))))
    if kind in (QTYPE.A, QTYPE.ANY):
        for address in random.sample(addresses, len(addresses)):
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=TTL, rdata=A(str(address))))
    return reply


def _pointer(query: DNSRecord, name: str | None) -> DNSRecord:
    if name is None:
        return _empty(query, RCODE.NXDOMAIN)
    reply = _empty(query, RCODE.NOERROR)
    if query.q.qtype in (QTYPE.PTR, QTYPE.ANY):
        reply.add_answer(RR(query.q.qname, QTYPE.PTR, ttl=TTL, rdata=PTR(name)))
    return reply


def _empty(query: DNSRecord, code: int) -> DNSRecord:
    """A reply without records; it speaks EDNS when the question did (RFC 6891, section 6.1.1)."""
    reply = query.reply(ra=1, aa=0)
    reply.header.rcode = code
    if any(record.rtype == QTYPE.OPT for record in query.ar):
        reply.add_ar(EDNS0(udp_len=_UDP_SIZE))
    return reply


def _reversed(name: str) -> IPv4Address | None:
    labels = name.removesuffix(".in-addr.arpa").split(".")
    if not name.endswith(".in-addr.arpa") or len(labels) != 4:
        return None
    try:
        return IPv4Address(".".join(reversed(labels)))
    except ValueError:
        return None


def _reversed6(name: str) -> IPv6Address | None:
    """A digit a label, the last one first (RFC 3596, section 2.5)."""
    labels = name.removesuffix(".ip6.arpa").split(".")
    digits = "".join(reversed(labels))
    if not name.endswith(".ip6.arpa") or len(labels) != 32 or not _DIGITS.fullmatch(digits):
        return None
    return IPv6Address(int(digits, 16))


def _udp_limit(query: DNSRecord) -> int:
    sizes = [record.edns_len for record in query.ar if record.rtype == QTYPE.OPT]
    return max(512, min(_UDP_SIZE, *sizes)) if sizes else 512


class Resolver:
    """Answers on one network until it is closed; enter after the gateway has its address."""

    def __init__(
        self,
        network: NetworkConfig,
        namespace: Path,
        directory: Directory,
        namespaces: Namespaces,
        forwarder: Forwarder,
    ) -> None:
        self.network = network
        self.directory = directory
        self._namespace = namespace
        self._namespaces = namespaces
        self._forwarder = forwarder
        self._identity: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: Counter[IPv4Address] = Counter()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        datagrams, stream, self._identity = await self._namespaces.inside(self._namespace, self._sockets)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        self._server = await asyncio.start_server(self._serve_stream, sock=stream, limit=65536)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def serves(self, namespace: Path) -> bool:
        """Whether the sockets are in the namespace that has this name now."""
        return self._identity is not None and self._identity == identity(namespace)

    def received(self, packet: bytes, sender: tuple[str, int]) -> None:
        """A datagram came; called by the loop."""
        asker = IPv4Address(sender[0])
        if (usual := usual_answer(packet, asker, self.network, self.directory)) is not None:
            self._transport.sendto(usual, sender)
            return
        query = parse(packet)
        if query is None:
            return
        own = answer(query, asker, self.network, self.directory)
        if own is not None:
            self._transport.sendto(_packed(own, _udp_limit(query)), sender)
            return
        self._spawn(self._forward_datagram(query, packet, asker, sender))

    async def _forward_datagram(
        self, query: DNSRecord, packet: bytes, asker: IPv4Address, sender: tuple[str, int]
    ) -> None:
        async with self._forwarder.turn((self.network.id, asker)) as allowed:
            if allowed:
                self._transport.sendto(await self._outside(query, packet, stream=False), sender)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions with their lengths before them (RFC 1035, section 4.2.2), one after the other."""
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        asker = IPv4Address(writer.get_extra_info("peername")[0])
        self._connections[asker] += 1
        try:
            if self._connections[asker] <= _CONNECTIONS_PER_ASKER:
                await self._converse(reader, writer, asker)
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass  # the client left, was silent for too long, or the resolver is being closed
        finally:
            self._connections[asker] -= 1
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asker: IPv4Address
    ) -> None:
        while True:
            async with asyncio.timeout(_IDLE):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                packet = await reader.readexactly(length)
            query = parse(packet)
            if query is None:
                return
            own = answer(query, asker, self.network, self.directory)
            async with self._forwarder.turn((self.network.id, asker)) as allowed:
                if own is None and not allowed:
                    return
                reply = own.pack() if own else await self._outside(query, packet, stream=True)
            writer.write(struct.pack("!H", len(reply)) + bytes(reply))
            async with asyncio.timeout(_IDLE):
                await writer.drain()

    async def _outside(self, query: DNSRecord, packet: bytes, *, stream: bool) -> bytes:
        try:
            return await self._forwarder.ask(packet, stream=stream)
        except Unavailable:
            return bytes(_empty(query, RCODE.SERVFAIL).pack())

    def _sockets(self) -> tuple[socket.socket, socket.socket, int | None]:
        """Runs inside the router namespace."""
        address = (str(self.network.gateway), 53)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            datagrams.bind(address)
            stream.bind(address)
            stream.listen(128)
        except OSError:
            datagrams.close()
            stream.close()
            raise
        datagrams.setblocking(False)
        stream.setblocking(False)
        return datagrams, stream, identity(Path("/proc/thread-self/ns/net"))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.received(data, addr)

    def error_received(self, exc: Exception) -> None:
        log.debug("dns.send_failed", network=self._resolver.network.id, error=str(exc))


def _packed(reply: DNSRecord, limit: int) -> bytes:
    """The reply; cut to nothing, with the flag that sends the asker to TCP, where it is too long."""
    packet = bytes(reply.pack())
    if len(packet) <= limit:
        return packet
    return bytes(reply.truncate().pack())

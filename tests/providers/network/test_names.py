"""The resolver of a network."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from dnslib import QTYPE, RCODE, RR, TXT, A, DNSRecord
from tests.providers.network.conftest import CLIENT, World, network, port

from skep.model.host import NetworkConfig, PortConfig
from skep.providers.local.network import LocalFabric

pytestmark = pytest.mark.root

GATEWAY = "10.1.0.1"


async def addresses(world: World, where: Path, name: str, kind: str = "A") -> list[str] | str:
    """Sorted addresses, or the name of the error."""
    packet = await world.query(where, GATEWAY, DNSRecord.question(name, kind).pack())
    if packet is None:
        return "silence"
    reply = DNSRecord.parse(packet)
    if reply.header.rcode != RCODE.NOERROR:
        return str(RCODE[reply.header.rcode])
    return sorted(str(record.rdata) for record in reply.rr)


class Named:
    """Two apps with a `db` each on one network, one of them with two `web` too."""

    def __init__(self, net: NetworkConfig) -> None:
        self.net = net
        self.web = [port(net, 10 + n, "shop", ("web", f"web-{n}", "www")) for n in range(2)]
        self.shop_db = port(net, 20, "shop", ("db", "db-0"))
        self.blog_db = port(net, 30, "blog", ("db", "db-0"))
        self.blog_queue = port(net, 31, "blog", ("queue", "queue-0"))
        self.third = port(net, 40, "third", ("worker", "worker-0"))

    @property
    def all(self) -> list[PortConfig]:
        return [*self.web, self.shop_db, self.blog_db, self.blog_queue, self.third]


@pytest.fixture
async def named(world: World, fabric: LocalFabric) -> Named:
    made = Named(network())
    await fabric.ensure_network(made.net)
    for one in made.all:
        await fabric.plug(one)
        await fabric.set_resolvable(one.replica, True)
    return made


@pytest.fixture
async def upstream(world: World) -> AsyncIterator[None]:
    """A name server in the outside world that knows `example.test`, and `long.test` only over TCP."""

    def reply(packet: bytes, stream: bool) -> bytes:
        query = DNSRecord.parse(packet)
        answer = query.reply()
        if query.q.qname == "example.test":
            answer.add_answer(RR("example.test", QTYPE.A, rdata=A("203.0.113.7")))
        elif query.q.qname == "long.test":
            for _ in range(30):
                answer.add_answer(RR("long.test", QTYPE.TXT, rdata=TXT("x" * 100)))
            answer = answer if stream else answer.truncate()
        else:
            answer.header.rcode = RCODE.NXDOMAIN
        return bytes(answer.pack())

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(reply(data, False), addr)

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = reply(await reader.readexactly(length), True)
        writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    loop = asyncio.get_running_loop()
    datagrams = await world.socket(world.client, socket.SOCK_DGRAM, (CLIENT, 53))
    transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=datagrams)
    listener = await world.socket(world.client, socket.SOCK_STREAM, (CLIENT, 53))
    server = await asyncio.start_server(stream, sock=listener)
    yield
    transport.close()
    server.close()


async def test_a_name_means_the_askers_own_app_first(world: World, fabric: LocalFabric, named: Named) -> None:
    shop, blog, third = (fabric.sandbox(p.replica) for p in (named.web[0], named.blog_queue, named.third))

    assert await addresses(world, shop, "db") == ["10.1.0.20"]
    assert await addresses(world, blog, "db") == ["10.1.0.30"]
    assert await addresses(world, shop, "DB-0") == ["10.1.0.20"]
    assert await addresses(world, shop, "db.blog") == ["10.1.0.30"]
    assert await addresses(world, shop, "queue") == ["10.1.0.31"]
    assert await addresses(world, third, "db") == "NXDOMAIN"  # two apps have one: which?
    assert await addresses(world, third, "web") == ["10.1.0.10", "10.1.0.11"]
    assert await addresses(world, third, "www.shop") == ["10.1.0.10", "10.1.0.11"]
    assert await addresses(world, shop, "nobody") == "NXDOMAIN"


async def test_only_running_replicas_are_named(world: World, fabric: LocalFabric, named: Named) -> None:
    asker = fabric.sandbox(named.third.replica)

    await fabric.set_resolvable(named.web[0].replica, False)
    assert await addresses(world, asker, "web") == ["10.1.0.11"]
    await fabric.set_resolvable(named.web[1].replica, False)
    assert await addresses(world, asker, "web") == "NXDOMAIN"
    await fabric.set_resolvable(named.web[0].replica, True)
    await fabric.unplug(named.web[1].id)
    assert await addresses(world, asker, "web") == ["10.1.0.10"]


async def test_known_names_have_no_ipv6_and_addresses_have_names(
    world: World, fabric: LocalFabric, named: Named
) -> None:
    asker = fabric.sandbox(named.third.replica)

    assert await addresses(world, asker, "web", "AAAA") == []
    assert await addresses(world, asker, "20.0.1.10.in-addr.arpa", "PTR") == ["db-0.shop."]
    assert await addresses(world, asker, "99.0.1.10.in-addr.arpa", "PTR") == "NXDOMAIN"


async def test_other_names_are_asked_of_the_world(
    world: World, fabric: LocalFabric, named: Named, upstream: None
) -> None:
    asker = fabric.sandbox(named.third.replica)

    assert await addresses(world, asker, "example.test") == ["203.0.113.7"]
    assert await addresses(world, asker, "no.test") == "NXDOMAIN"


async def test_a_long_answer_comes_over_tcp(
    world: World, fabric: LocalFabric, named: Named, upstream: None
) -> None:
    asker = fabric.sandbox(named.third.replica)
    question = DNSRecord.question("long.test", "TXT").pack()
    packet = await world.query(asker, GATEWAY, question)
    assert packet is not None
    assert DNSRecord.parse(packet).header.tc

    stream = await world.socket(asker, socket.SOCK_STREAM, None)
    await asyncio.get_running_loop().sock_connect(stream, (GATEWAY, 53))
    reader, writer = await asyncio.open_connection(sock=stream)
    writer.write(struct.pack("!H", len(question)) + question)
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    reply = DNSRecord.parse(await reader.readexactly(length))
    writer.close()

    assert len(reply.rr) == 30


async def test_garbage_gets_no_answer_and_does_no_harm(
    world: World, fabric: LocalFabric, named: Named
) -> None:
    asker = fabric.sandbox(named.third.replica)
    good = DNSRecord.question("queue").pack()
    garbage = [b"", b"\0", b"x" * 500, good[:15], good[:4] + b"\xff\xff" + good[6:], b"\xc0\x0c" * 200]

    for packet in garbage:
        assert await world.query(asker, GATEWAY, packet) is None
    assert await addresses(world, asker, "queue") == ["10.1.0.31"]


async def test_an_internal_network_asks_nobody_outside(
    world: World, fabric: LocalFabric, upstream: None
) -> None:
    net = network(internal=True)
    one = port(net, 5, "shop", ("web", "web-0"))
    await fabric.ensure_network(net)
    await fabric.plug(one)
    await fabric.set_resolvable(one.replica, True)

    assert await addresses(world, fabric.sandbox(one.replica), "web") == ["10.1.0.5"]
    assert await addresses(world, fabric.sandbox(one.replica), "example.test") == "NXDOMAIN"


async def test_a_restart_is_silence_not_refusal_and_keeps_the_names(world: World) -> None:
    net = network()
    one = port(net, 5, "shop", ("web", "web-0"))
    async with world.open() as fabric:
        await fabric.ensure_network(net)
        await fabric.plug(one)
        await fabric.set_resolvable(one.replica, True)
        sandbox = fabric.sandbox(one.replica)

    assert await addresses(world, sandbox, "web") == "silence"
    async with world.open() as fabric:
        assert await addresses(world, sandbox, "web") == ["10.1.0.5"]
        assert await fabric.networks() == {net.id}
        assert await fabric.ports() == {one.id}

"""Security groups with real traffic: on one host, and over two."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from dnslib import DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.providers.network.conftest import CLIENT, HOST, World, inside, network, port, publications
from tests.providers.network.hosts import Hosts, Site, hosts, ping

from skep.model.errors import InvalidInput, Stale
from skep.model.groups import Flow, GroupRule, admits
from skep.model.host import GroupPolicy, GuardedPort, NetworkConfig, NetworkGuards, PortConfig
from skep.model.ids import GroupId
from skep.providers.local.network import LocalFabric
from skep.providers.local.network.guards import BRIDGED, TABLE
from skep.providers.local.network.naming import Names

pytestmark = pytest.mark.root
WEB, DB = GroupId("web"), GroupId("db")


def guards(
    net: NetworkConfig,
    generation: int,
    *guarded: PortConfig,
    rules: tuple[GroupRule, ...] = (),
    members: tuple[PortConfig, ...] = (),
) -> NetworkGuards:
    """The ports are in group db with these rules, which may name the group web with its members."""
    return NetworkGuards(
        network=net.id,
        generation=generation,
        ports=tuple(GuardedPort(address=one.address, groups=(DB,)) for one in guarded),
        groups=(
            GroupPolicy(id=DB, rules=rules),
            GroupPolicy(id=WEB, members=tuple(one.address for one in members)),
        ),
    )


def rule(ports: str = "", protocol: str = "tcp", **more: str) -> GroupRule:
    return msgspec.convert({"protocol": protocol, "ports": ports, **more}, GroupRule)


class Trio:
    """Three ports of one network on one host; `server` listens on 80 and 81."""

    def __init__(
        self, world: World, fabric: LocalFabric, net: NetworkConfig, ports: list[PortConfig]
    ) -> None:
        self.world, self.fabric, self.net = world, fabric, net
        self.server, self.friend, self.stranger = ports
        self.generation = 0

    async def guard(self, *rules: GroupRule) -> None:
        self.generation += 1
        told = guards(self.net, self.generation, self.server, rules=rules, members=(self.friend,))
        await self.fabric.set_guards(told)

    async def ask(self, who: PortConfig, number: int = 80) -> str:
        return await self.world.ask(self.fabric.sandbox(who.replica), str(self.server.address), number)

    @property
    def router(self) -> Path:
        return Names(self.world.instance).router(self.net.id)


@pytest.fixture
async def trio(world: World, fabric: LocalFabric) -> Trio:
    net = network()
    await fabric.ensure_network(net)
    ports = [port(net, 5, names=("db",)), port(net, 6), port(net, 7)]
    for one in ports:
        await fabric.plug(one)
        await fabric.set_resolvable(one.replica, True)
    for number in (80, 81):
        await world.serve(fabric.sandbox(ports[0].replica), number, f"db{number}")
    return Trio(world, fabric, net, ports)


async def test_a_guarded_port_admits_what_a_rule_admits_and_nothing_else(trio: Trio) -> None:
    assert await trio.ask(trio.stranger) == "db80 10.1.0.7"

    await trio.guard(rule("80", group=WEB))

    assert await trio.ask(trio.friend) == "db80 10.1.0.6"
    assert await trio.ask(trio.friend, 81) == "silence"
    assert await trio.ask(trio.stranger) == "silence"
    assert await trio.fabric.networks() == {trio.net.id}


async def test_what_a_guarded_port_begins_is_answered(trio: Trio) -> None:
    await trio.world.serve(trio.fabric.sandbox(trio.friend.replica), 80, "friend")
    await trio.world.serve(trio.world.client, 80, "world")
    await trio.guard()
    own = trio.fabric.sandbox(trio.server.replica)

    assert await trio.world.ask(own, str(trio.friend.address), 80) == "friend 10.1.0.5"
    assert await trio.world.ask(own, CLIENT, 80) == f"world {HOST}"
    assert await trio.ask(trio.friend) == "silence"


async def test_a_rule_for_egress_refuses_all_else_but_answers_and_names(trio: Trio) -> None:
    for one in (trio.friend, trio.stranger):
        await trio.world.serve(trio.fabric.sandbox(one.replica), 80, "it")
    await trio.guard(rule("80"), rule("80", direction="egress", cidr=f"{trio.friend.address}/32"))
    own = trio.fabric.sandbox(trio.server.replica)

    assert await trio.world.ask(own, str(trio.friend.address), 80) == "it 10.1.0.5"
    assert await trio.world.ask(own, str(trio.stranger.address), 80) == "silence"
    assert await trio.ask(trio.stranger) == "db80 10.1.0.7"
    question = DNSRecord.question("db.shop").pack()
    assert await trio.world.query(own, str(trio.net.gateway), question) is not None


async def test_pings_follow_their_rules(trio: Trio) -> None:
    site = Site(trio.world, IPv4Address(HOST))
    where = trio.fabric.sandbox(trio.friend.replica)

    await trio.guard(rule("80"))
    refused = await ping(site, where, trio.server.address)
    await trio.guard(rule(protocol="icmp"))
    admitted = await ping(site, where, trio.server.address)
    out = await ping(site, trio.fabric.sandbox(trio.server.replica), trio.friend.address)

    assert (refused, admitted, out) == (False, True, True)


async def test_large_datagrams_pass_whole(trio: Trio) -> None:
    await trio.guard(rule("53", protocol="udp"))
    listening = await trio.world.socket(
        trio.fabric.sandbox(trio.server.replica), socket.SOCK_DGRAM, (str(trio.server.address), 53)
    )
    sending = await trio.world.socket(trio.fabric.sandbox(trio.friend.replica), socket.SOCK_DGRAM, None)
    loop = asyncio.get_running_loop()

    with listening, sending:
        await loop.sock_sendto(sending, bytes(8000), (str(trio.server.address), 53))
        async with asyncio.timeout(2):
            assert len(await loop.sock_recv(listening, 65_535)) == 8000


class Chat:
    """A connection that stays, each word of which is answered with itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def answers(self) -> bool:
        self._writer.write(b"word")
        try:
            async with asyncio.timeout(0.6):
                return await self._reader.readexactly(4) == b"word"
        except TimeoutError:
            return False


@asynccontextmanager
async def chat(trio: Trio, who: PortConfig) -> AsyncIterator[Chat]:
    writers = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError):
            while word := await reader.read(100):
                writer.write(word)

    own, there = trio.fabric.sandbox(trio.server.replica), (str(trio.server.address), 90)
    listening = await trio.world.socket(own, socket.SOCK_STREAM, there)
    async with await asyncio.start_server(echo, sock=listening):
        client = await trio.world.socket(trio.fabric.sandbox(who.replica), socket.SOCK_STREAM, None)
        await asyncio.get_running_loop().sock_connect(client, there)
        reader, writer = await asyncio.open_connection(sock=client)
        yield Chat(reader, writer)
        for each in (writer, *writers):
            each.transport.abort()


async def test_a_connection_outlives_changes_that_admit_it_and_ends_with_its_rule(trio: Trio) -> None:
    await trio.guard(rule("90"))
    async with chat(trio, trio.friend) as talk:
        before = await talk.answers()

        await trio.guard(rule("80-100", cidr="10.1.0.0/24"))
        still = await talk.answers()
        await trio.guard(rule("80"))
        ended = not await talk.answers()

    assert (before, still, ended) == (True, True, True)


async def test_a_connection_from_before_the_first_group_goes_on_where_it_is_admitted(trio: Trio) -> None:
    async with chat(trio, trio.friend) as talk:
        before = await talk.answers()

        await trio.guard(rule("90"))
        after = await talk.answers()

    assert (before, after) == (True, True)


async def test_published_ports_obey_the_rules_of_their_target(trio: Trio) -> None:
    await trio.fabric.publish(publications(trio.net, 8080, 80, (trio.server.address,)))
    asked = trio.world.ask

    await trio.guard(rule("80", cidr=f"{CLIENT}/32"))
    admitted = await asked(trio.world.client, HOST, 8080)
    await trio.guard(rule("80", cidr="203.0.113.0/24"))
    refused = await asked(trio.world.client, HOST, 8080)

    assert (admitted, refused) == (f"db80 {CLIENT}", "silence")


async def test_damage_to_the_guards_is_seen_and_healed(trio: Trio) -> None:
    await trio.guard(rule("80"))
    for damage in (
        ("nft", "delete", "chain", "inet", TABLE, "guarded"),
        ("nft", "flush", "map", "inet", TABLE, "targets"),
        ("nft", "delete", "table", "inet", TABLE),
        ("sysctl", "-qw", f"net.{BRIDGED.replace('/', '.')}=0"),
    ):
        inside(trio.router, *damage)
        assert await trio.fabric.networks() == set(), damage

        await trio.fabric.ensure_network(trio.net)

        assert await trio.fabric.networks() == {trio.net.id}
        assert await trio.ask(trio.stranger, 81) == "silence"


async def test_nothing_is_left_when_the_last_port_is_free_again(trio: Trio) -> None:
    await trio.guard(rule("80"))
    await trio.fabric.set_guards(NetworkGuards(network=trio.net.id, generation=50))

    assert await trio.ask(trio.stranger, 81) == "db81 10.1.0.7"
    assert TABLE not in inside(trio.router, "nft", "list", "tables")
    assert await trio.fabric.networks() == {trio.net.id}


async def test_guards_outlive_the_agent(world: World) -> None:
    net = network()
    one, other = port(net, 5), port(net, 6)
    async with world.open() as fabric:
        await fabric.ensure_network(net)
        await fabric.set_guards(told := guards(net, 3, one, rules=(rule("81"),)))
        for each in (one, other):
            await fabric.plug(each)
        await world.serve(fabric.sandbox(one.replica), 80, "db80")

    async with world.open() as fabric:
        assert (await fabric.guards())[net.id].digest == told.digest
        assert await fabric.networks() == {net.id}
        assert await world.ask(fabric.sandbox(other.replica), str(one.address), 80) == "silence"
        with pytest.raises(Stale):
            await fabric.set_guards(guards(net, 2))
        with pytest.raises(InvalidInput):
            await fabric.set_guards(msgspec.structs.replace(told, groups=(), generation=4))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with hosts(tmp_path, 2) as made:
        yield made


async def test_groups_hold_across_hosts(two: Hosts) -> None:
    net = network()
    await two.ensure(net)
    a, b = two.sites
    server, near = await b.plug(port(net, 5)), await b.plug(port(net, 6))
    friend, stranger = await a.plug(port(net, 7)), await a.plug(port(net, 8))
    await two.tell(net)
    for number in (80, 81):
        await b.world.serve(b.sandbox(server), number, f"db{number}")
        await a.world.serve(a.sandbox(friend), number, "friend")

    await b.fabric.set_guards(guards(net, 1, server, rules=(rule("80", group=WEB),), members=(friend, near)))

    assert await a.world.ask(a.sandbox(friend), "10.1.0.5", 80) == "db80 10.1.0.7"
    assert await a.world.ask(a.sandbox(friend), "10.1.0.5", 81) == "silence"
    assert await a.world.ask(a.sandbox(stranger), "10.1.0.5", 80) == "silence"
    assert await b.world.ask(b.sandbox(near), "10.1.0.5", 80) == "db80 10.1.0.6"
    assert await b.world.ask(b.sandbox(server), "10.1.0.7", 81) == "friend 10.1.0.5"
    assert await b.fabric.networks() == {net.id}


async def test_a_direct_connection_to_a_published_replica_elsewhere_keeps_its_address(two: Hosts) -> None:
    net = network()
    await two.ensure(net)
    a, b = two.sites
    asking, server = await a.plug(port(net, 5)), await b.plug(port(net, 6))
    await two.tell(net)
    await b.world.serve(b.sandbox(server), 80, "db")
    await a.fabric.publish(publications(net, 8080, 80, (server.address,)))

    await a.fabric.set_guards(guards(net, 1, asking))

    assert await a.world.ask(a.sandbox(asking), "10.1.0.6", 80) == "db 10.1.0.5"
    assert (await a.world.ask(a.world.client, HOST, 8080)).startswith("db 24")


ADDRESSES = st.sampled_from(["", "10.1.0.0/29", "10.1.0.6/32", "10.1.0.4/30", "0.0.0.0/5", "10.0.0.0/8"])
PORTS = st.sampled_from(["", "80", "81", "79-80", "80-90", "1-65535", "64-127"])
RULES = st.lists(
    st.builds(
        lambda direction, protocol, ports, cidr, grouped: GroupRule(
            direction=direction,
            protocol=protocol,
            ports=ports if protocol in ("tcp", "udp") else "",
            cidr="" if grouped else cidr,
            group=WEB if grouped else "",
        ),
        st.sampled_from(["ingress", "ingress", "egress"]),
        st.sampled_from(["tcp", "tcp", "udp", "icmp", "any"]),
        PORTS,
        ADDRESSES,
        st.booleans(),
    ),
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(data=st.data())
async def test_the_kernel_decides_as_the_model_does(trio: Trio, data: st.DataObject) -> None:
    rules = data.draw(RULES)
    await trio.guard(*rules)

    for who in (trio.friend, trio.stranger):
        flow = Flow(
            direction="ingress",
            remote=who.address,
            protocol="tcp",
            port=80,
            remote_groups=frozenset({WEB} if who is trio.friend else ()),
        )
        wanted = admits({DB: rules}, flow) is not None
        assert ((await trio.ask(who)) != "silence") == wanted, [str(one) for one in rules]
    assert await trio.fabric.networks() == {trio.net.id}

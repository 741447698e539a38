"""Virtual IPs with real traffic: on one host, and over two."""

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dnslib import DNSRecord
from tests.providers.network.conftest import HOST, World, inside, network, port
from tests.providers.network.hosts import Hosts, Site, hosts, ping
from tests.providers.network.test_spoofing import Wire, arp_frame, ip_frame

from skep.model.errors import Stale
from skep.model.groups import GroupRule
from skep.model.host import (
    Backend,
    GroupPolicy,
    GuardedPort,
    NetworkConfig,
    NetworkGuards,
    NetworkVirtualIps,
    PortConfig,
    VirtualIp,
)
from skep.model.ids import GroupId, ServiceId
from skep.providers.local.network import (
    LocalFabric,
    balancing_messages,
    netfilter,
    nft,
    nft_elements,
    virtual_ips,
)
from skep.providers.local.network.nft import Table
from skep.providers.local.network.virtual_ips import TABLE

pytestmark = pytest.mark.root
WEB = 100
"""The number of the virtual IP of web within its network."""


def led(
    net: NetworkConfig, generation: int, *backends: tuple[PortConfig, int], number: int = WEB
) -> NetworkVirtualIps:
    """The virtual IP of service web of app shop, with these replicas and weights behind it."""
    behind = tuple(Backend(address=one.address, weight=weight) for one, weight in backends)
    web = VirtualIp(
        service=ServiceId("web"), address=net.subnet[number], app="shop", names=("web",), backends=behind
    )
    return NetworkVirtualIps(network=net.id, generation=generation, virtual_ips=(web,))


class Shop:
    """A client and two replicas of web on one network of one host; the replicas listen on 80."""

    def __init__(
        self, world: World, fabric: LocalFabric, net: NetworkConfig, ports: list[PortConfig]
    ) -> None:
        self.world, self.fabric, self.net = world, fabric, net
        self.client, self.one, self.two = ports
        self.generation = 0

    async def lead(self, *backends: tuple[PortConfig, int]) -> None:
        self.generation += 1
        await self.fabric.set_virtual_ips(led(self.net, self.generation, *backends))

    @property
    def address(self) -> str:
        return str(self.net.subnet[WEB])

    def sandbox(self, who: PortConfig) -> Path:
        return self.fabric.sandbox(who.replica)

    async def ask(self, who: PortConfig | None = None, number: int = 80) -> str:
        return await self.world.ask(self.sandbox(who or self.client), self.address, number)

    async def names(self, name: str, kind: str = "A") -> set[str]:
        question = DNSRecord.question(name, kind).pack()
        packet = await self.world.query(self.sandbox(self.client), str(self.net.gateway), question)
        return {str(record.rdata) for record in DNSRecord.parse(packet or b"").rr}


@pytest.fixture
async def shop(world: World, fabric: LocalFabric) -> Shop:
    net = network()
    await fabric.ensure_network(net)
    ports = [
        port(net, 5),
        port(net, 6, names=("web-0", "web")),
        port(net, 7, names=("web-1", "web")),
    ]
    for one in ports:
        await fabric.plug(one)
        await fabric.set_resolvable(one.replica, True)
    for one in ports[1:]:
        await world.serve(fabric.sandbox(one.replica), 80, one.names[0])
    return Shop(world, fabric, net, ports)


async def test_new_connections_are_spread_by_weight(shop: Shop) -> None:
    await shop.lead((shop.one, 100), (shop.two, 100))
    both = Counter([await shop.ask() for _ in range(40)])
    await shop.lead((shop.one, 0), (shop.two, 1))
    heavy = Counter([await shop.ask() for _ in range(10)])

    assert set(both) == {"web-0 10.1.0.5", "web-1 10.1.0.5"}
    assert heavy == {"web-1 10.1.0.5": 10}


async def test_a_service_without_replicas_refuses_at_once(shop: Shop) -> None:
    await shop.lead()

    assert await shop.ask() == "refused"
    assert await say(shop, b"word") == "refused"


async def test_nobody_is_led_who_was_told_nothing(shop: Shop) -> None:
    assert await shop.ask() == "silence"
    assert TABLE not in inside(shop.sandbox(shop.client), "nft", "list", "tables")


async def test_a_replica_is_led_to_itself(shop: Shop) -> None:
    await shop.lead((shop.one, 100))

    assert await shop.ask(shop.one) == "web-0 10.1.0.6"


async def test_direct_connections_go_on_and_are_not_tracked(shop: Shop) -> None:
    await shop.lead((shop.one, 100), (shop.two, 100))
    await shop.ask(shop.one)
    before = tracked(shop.sandbox(shop.one))

    for who in (shop.client, shop.one, shop.two):
        assert await shop.world.ask(shop.sandbox(who), "10.1.0.6", 80) == f"web-0 {who.address}"
        assert await shop.world.ask(shop.sandbox(who), "10.1.0.7", 80) == f"web-1 {who.address}"

    assert before == tracked(shop.sandbox(shop.one)) == 1
    assert tracked(shop.sandbox(shop.two)) == 0


def tracked(where: Path) -> int:
    """How many connections are."""
    return int(inside(where, "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))


async def test_an_open_connection_stays_when_its_replica_is_taken_away(shop: Shop) -> None:
    listening = await shop.world.socket(shop.sandbox(shop.one), socket.SOCK_STREAM, ("0.0.0.0", 90))
    listening.listen()
    await shop.lead((shop.one, 100))
    loop = asyncio.get_running_loop()
    with listening, await shop.world.socket(shop.sandbox(shop.client), socket.SOCK_STREAM, None) as client:
        await loop.sock_connect(client, (shop.address, 90))
        served, _ = await loop.sock_accept(listening)

        with served:
            for backends in (((shop.one, 0), (shop.two, 100)), ((shop.two, 100),), ()):
                await shop.lead(*backends)
                await loop.sock_sendall(client, b"ask")
                async with asyncio.timeout(2):
                    assert await loop.sock_recv(served, 100) == b"ask"
                await loop.sock_sendall(served, b"answer")
                async with asyncio.timeout(2):
                    assert await loop.sock_recv(client, 100) == b"answer"


async def say(shop: Shop, word: bytes, mouth: socket.socket | None = None) -> str:
    """What is answered to a datagram to port 53 of the virtual IP."""
    loop = asyncio.get_running_loop()
    client = mouth or await shop.world.socket(shop.sandbox(shop.client), socket.SOCK_DGRAM, None)
    try:
        if mouth is None:
            client.connect((shop.address, 53))
        await loop.sock_sendall(client, word)
        async with asyncio.timeout(0.6):
            return (await loop.sock_recv(client, 100)).decode()
    except TimeoutError:
        return "silence"
    except OSError:
        return "refused"
    finally:
        if mouth is None:
            client.close()


async def echo(shop: Shop, who: PortConfig) -> socket.socket:
    """Answer every datagram to port 53 with the name of the replica."""
    made = await shop.world.socket(shop.sandbox(who), socket.SOCK_DGRAM, ("0.0.0.0", 53))
    loop = asyncio.get_running_loop()

    def answer() -> None:
        _, sender = made.recvfrom(100)
        made.sendto(who.names[0].encode(), sender)

    loop.add_reader(made, answer)
    return made


async def test_datagrams_keep_their_replica_until_it_is_gone(shop: Shop) -> None:
    with await echo(shop, shop.one) as first, await echo(shop, shop.two) as second:
        await shop.lead((shop.one, 100))
        with await shop.world.socket(shop.sandbox(shop.client), socket.SOCK_DGRAM, None) as mouth:
            mouth.connect((shop.address, 53))
            before = await say(shop, b"1", mouth)
            await shop.lead((shop.one, 0), (shop.two, 100))
            drained = await say(shop, b"2", mouth)
            await shop.lead((shop.two, 100))
            after = await say(shop, b"3", mouth)
            await shop.lead()
            nobody = await say(shop, b"4", mouth)
        for listener in (first, second):
            asyncio.get_running_loop().remove_reader(listener)

    assert (before, drained, after, nobody) == ("web-0", "web-0", "web-1", "refused")


async def test_a_replica_asks_itself_by_datagrams(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    with await echo(shop, shop.one) as listener:
        with await shop.world.socket(shop.sandbox(shop.one), socket.SOCK_DGRAM, None) as mouth:
            mouth.connect((shop.address, 53))

            assert await say(shop, b"1", mouth) == "web-0"
        asyncio.get_running_loop().remove_reader(listener)


async def test_a_virtual_ip_answers_pings_while_somebody_is_behind_it(shop: Shop) -> None:
    site = Site(shop.world, IPv4Address(HOST))
    own = shop.sandbox(shop.client)

    await shop.lead((shop.two, 100))
    led_on = await ping(site, own, shop.net.subnet[WEB])
    large = await ping(site, own, shop.net.subnet[WEB], 1400)
    await shop.lead()
    refused = await ping(site, own, shop.net.subnet[WEB])

    assert (led_on, large, refused) == (True, True, False)


async def test_names_lead_to_the_virtual_ip_and_tasks_to_replicas(shop: Shop) -> None:
    before = await shop.names("web")
    await shop.lead((shop.one, 100), (shop.two, 100))

    assert before == {"10.1.0.6", "10.1.0.7"}
    assert await shop.names("web") == await shop.names("web.shop") == {"10.1.0.100"}
    assert await shop.names("tasks.web") == await shop.names("tasks.web.shop") == before
    assert await shop.names("web-1") == {"10.1.0.7"}
    assert await shop.names("100.0.1.10.in-addr.arpa", "PTR") == {"web.shop."}


async def test_what_is_plugged_later_is_led_too(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    late = port(shop.net, 8)

    await shop.fabric.plug(late)

    assert await shop.ask(late) == "web-0 10.1.0.8"


async def test_groups_see_the_addresses_of_replicas(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    db = GroupId("db")
    rules = (GroupRule(protocol="tcp", ports="80", cidr=f"{shop.client.address}/32"),)

    await shop.fabric.set_guards(
        NetworkGuards(
            network=shop.net.id,
            generation=1,
            ports=(GuardedPort(address=shop.one.address, groups=(db,)),),
            groups=(GroupPolicy(id=db, rules=rules),),
        )
    )

    assert await shop.ask() == "web-0 10.1.0.5"
    assert await shop.ask(shop.two) == "silence"


async def test_damage_is_seen_and_healed(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    inside(shop.sandbox(shop.client), "nft", "delete", "table", "inet", TABLE)
    damaged = await shop.fabric.ports()

    await shop.fabric.plug(shop.client)

    assert shop.client.id not in damaged
    assert await shop.fabric.ports() == {one.id for one in (shop.client, shop.one, shop.two)}
    assert await shop.ask() == "web-0 10.1.0.5"


async def test_the_same_again_makes_tables_whole(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    inside(shop.sandbox(shop.client), "nft", "flush", "chain", "inet", TABLE, "choose")

    await shop.fabric.set_virtual_ips(led(shop.net, shop.generation, (shop.one, 100)))

    assert await shop.ask() == "web-0 10.1.0.5"


async def test_virtual_ips_come_and_go(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    before = await shop.ask()
    await shop.fabric.set_virtual_ips(led(shop.net, 50, (shop.two, 100), number=101))
    moved = await shop.world.ask(shop.sandbox(shop.client), str(shop.net.subnet[101]), 80)
    await shop.fabric.set_virtual_ips(NetworkVirtualIps(network=shop.net.id, generation=51))

    assert (before, moved) == ("web-0 10.1.0.5", "web-1 10.1.0.5")
    assert TABLE not in inside(shop.sandbox(shop.client), "nft", "list", "tables")


async def test_virtual_ips_outlive_the_agent(world: World) -> None:
    net = network()
    client, web = port(net, 5), port(net, 6)
    async with world.open() as fabric:
        await fabric.ensure_network(net)
        await fabric.set_virtual_ips(told := led(net, 3, (web, 100)))
        for each in (client, web):
            await fabric.plug(each)
        await world.serve(fabric.sandbox(web.replica), 80, "web")

    async with world.open() as fabric:
        assert (await fabric.virtual_ips())[net.id].digest == told.digest
        assert await fabric.ports() == {client.id, web.id}
        assert await world.ask(fabric.sandbox(client.replica), str(net.subnet[WEB]), 80) == "web 10.1.0.5"
        with pytest.raises(Stale):
            await fabric.set_virtual_ips(led(net, 2, (web, 100)))
        await fabric.set_virtual_ips(led(net, 4))
        assert await world.ask(fabric.sandbox(client.replica), str(net.subnet[WEB]), 80) == "refused"


async def test_nobody_answers_for_a_virtual_ip(shop: Shop) -> None:
    await shop.lead((shop.one, 100))
    liar, victim = shop.two, shop.client
    wire = Wire(shop.world, shop.sandbox(liar), shop.sandbox(victim))
    fakes = {
        "a datagram from it": ip_frame(liar.mac, shop.address, victim, 80),
        "ARP for it": arp_frame(liar.mac, liar.mac, shop.address, victim),
    }

    passed = [name for name, frame in fakes.items() if await wire.arrives(frame)]
    inside(shop.sandbox(liar), "ip", "address", "add", f"{shop.address}/24", "dev", "eth0")

    assert passed == []
    assert await shop.ask() == "web-0 10.1.0.5"


async def test_what_comes_in_leaves_no_entries_in_a_sandbox(shop: Shop) -> None:
    with await echo(shop, shop.one) as listener:
        await shop.lead((shop.one, 100))
        await shop.ask()
        await say(shop, b"word")
        before = tracked(shop.sandbox(shop.client))

        for number in range(2000, 2040):
            flood = ip_frame(shop.one.mac, str(shop.one.address), shop.client, number, 53)
            assert await Wire(shop.world, shop.sandbox(shop.one), shop.sandbox(shop.client)).arrives(flood)
        asyncio.get_running_loop().remove_reader(listener)

    assert before == 2
    assert tracked(shop.sandbox(shop.client)) == before


async def test_messages_make_of_a_table_exactly_another(world: World) -> None:
    net = network(subnet="10.1.0.0/20")

    def table(**services: tuple[int, ...]) -> Table:
        """Of virtual IPs, each with the weights behind it; a1000 has the address number 1000."""
        return virtual_ips.table(
            VirtualIp(
                service=ServiceId(name),
                address=net.subnet[int(name[1:])],
                app="shop",
                names=(name,),
                backends=tuple(
                    Backend(address=net.subnet[2 + n], weight=weight) for n, weight in enumerate(weights)
                ),
            )
            for name, weights in services.items()
        )

    steps = [
        table(a1000=(100,), a1001=()),
        table(a1000=(100, 1, 0, 50), a1001=(7, 7, 7)),
        table(a1001=(7, 7, 8), a1002=(1,) * 300, a1003=()),
        table(a1002=(256, 1), a1004=(1, 1)),
        table(a1000=(1,) * 3),
    ]

    def change(before: Table, after: Table) -> bool:
        with netfilter.opened(1 << 17) as channel:
            nft_elements.send(channel, balancing_messages.changes(after, before))
        return nft.whole((after,))

    await world.namespaces.on_host(lambda: nft.reconcile((steps[0],)))
    for before, after in itertools.pairwise(steps):
        assert balancing_messages.changes(after, after) == b""
        assert await world.namespaces.on_host(partial(change, before, after))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with hosts(tmp_path, 2) as made:
        yield made


async def test_connections_are_led_across_hosts(two: Hosts) -> None:
    net = network()
    await two.ensure(net)
    a, b = two.sites
    client, near = await a.plug(port(net, 5)), await a.plug(port(net, 6))
    far = await b.plug(port(net, 7))
    await two.tell(net)
    await a.world.serve(a.sandbox(near), 80, "near")
    await b.world.serve(b.sandbox(far), 80, "far")

    for site in two.sites:
        await site.fabric.set_virtual_ips(led(net, 1, (near, 100), (far, 100)))

    asked = {await a.world.ask(a.sandbox(client), "10.1.0.100", 80) for _ in range(30)}
    assert asked == {"near 10.1.0.5", "far 10.1.0.5"}
    asked = {await b.world.ask(b.sandbox(far), "10.1.0.100", 80) for _ in range(30)}
    assert asked == {"near 10.1.0.7", "far 10.1.0.7"}

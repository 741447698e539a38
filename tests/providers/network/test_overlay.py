"""One network on several hosts."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest
from dnslib import DNSRecord
from tests.providers.network.conftest import CLIENT, HOST, inside, network, port, publications, shell
from tests.providers.network.hosts import Hosts, Site, hosts, ping, remote

from skep.model.errors import InvalidInput, Stale, Unsupported
from skep.model.host import HostSubnet, NetworkConfig, NetworkPeers, PortConfig
from skep.providers.local.network import LocalFabric
from skep.providers.local.network.naming import router_address

pytestmark = pytest.mark.root


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with hosts(tmp_path, 2) as made:
        yield made


class Pair:
    """A network on two hosts with a port on each."""

    def __init__(self, all_hosts: Hosts, net: NetworkConfig, ports: list[PortConfig]) -> None:
        self.hosts, self.net = all_hosts, net
        self.a, self.b = all_hosts.sites[:2]
        self.one, self.other = ports

    async def works(self) -> bool:
        return await ping(self.a, self.a.sandbox(self.one), self.other.address) and await ping(
            self.b, self.b.sandbox(self.other), self.one.address
        )


async def pair(made: Hosts, net: NetworkConfig) -> Pair:
    await made.ensure(net)
    one = await made.sites[0].plug(port(net, 5, names=("one-0", "one")))
    other = await made.sites[1].plug(port(net, 6, names=("other-0", "other")))
    await made.tell(net)
    return Pair(made, net, [one, other])


async def test_replicas_on_two_hosts_reach_each_other(two: Hosts) -> None:
    at = await pair(two, network())
    await at.b.world.serve(at.b.sandbox(at.other), 80, "other")

    assert await at.works()
    assert await at.a.world.ask(at.a.sandbox(at.one), "10.1.0.6", 80) == "other 10.1.0.5"
    for site in two.sites:
        assert await site.fabric.networks() == {at.net.id}


async def test_three_hosts_in_subnets_of_their_own_share_a_network(tmp_path: Path) -> None:
    async with hosts(tmp_path, 3, routed=True) as three:
        net = network()
        await three.ensure(net)
        ports = [await site.plug(port(net, 5 + number)) for number, site in enumerate(three.sites)]
        await three.tell(net)

        for site, own in zip(three.sites, ports, strict=True):
            for there in ports:
                assert await ping(site, site.sandbox(own), there.address)


async def test_what_is_plugged_is_heard_at_once(two: Hosts) -> None:
    """The bridge takes the port for connected when the plug has ended, not some time later."""
    at = await pair(two, network())
    ports = [port(at.net, number) for number in range(20, 50)]

    for nic in ports:
        await at.a.fabric.plug(nic)
        assert await ping(at.a, at.a.sandbox(nic), at.net.gateway)


async def test_networks_with_the_same_addresses_stay_apart(two: Hosts) -> None:
    ours = await pair(two, network(1))
    theirs = network(2)
    await two.ensure(theirs)
    stranger = await ours.a.plug(port(theirs, 7))
    await two.tell(theirs)

    assert await ours.works()
    assert not await ping(ours.a, ours.a.sandbox(stranger), ours.other.address)
    assert not await ping(ours.b, ours.b.sandbox(ours.other), stranger.address)


async def test_two_tenants_have_the_same_addresses_on_the_same_hosts(two: Hosts) -> None:
    ours, theirs = await pair(two, network(1)), await pair(two, network(2))
    for at, text in ((ours, "ours"), (theirs, "theirs")):
        await at.b.world.serve(at.b.sandbox(at.other), 80, text)

    for at, text in ((ours, "ours"), (theirs, "theirs")):
        assert await at.works()
        assert await at.a.world.ask(at.a.sandbox(at.one), "10.1.0.6", 80) == f"{text} 10.1.0.5"

    await two.sites[1].unplug(ours.other)
    await two.tell(ours.net)

    assert not await ping(ours.a, ours.a.sandbox(ours.one), theirs.other.address)
    assert await theirs.works()


async def test_replicas_of_two_tenants_meet_on_a_shared_network_under_their_own_names(two: Hosts) -> None:
    net = network()
    await two.ensure(net)
    mine = await two.sites[0].plug(port(net, 5, "shop", ("web-0", "web")))
    guest = await two.sites[1].plug(port(net, 6, "shop.acme", ("web-0", "web")))
    await two.tell(net)
    world = two.sites[0].world
    await two.sites[1].world.serve(two.sites[1].sandbox(guest), 80, "guest")

    for name, address in (
        ("web", mine.address),
        ("web.shop", mine.address),
        ("web.shop.acme", guest.address),
    ):
        packet = await world.query(
            two.sites[0].sandbox(mine), str(net.gateway), DNSRecord.question(name).pack()
        )
        assert packet is not None
        assert [str(record.rdata) for record in DNSRecord.parse(packet).rr] == [str(address)]
    assert await world.ask(two.sites[0].sandbox(mine), "10.1.0.6", 80) == "guest 10.1.0.5"


@pytest.mark.parametrize("mtu", [1500, 1400])
async def test_the_largest_packet_passes_uncut_and_a_larger_one_is_refused(tmp_path: Path, mtu: int) -> None:
    async with hosts(tmp_path, 2, mtu=mtu) as made:
        at = await pair(made, network())
        largest = mtu - 50 - 28

        for site, own, there in ((at.a, at.one, at.other), (at.b, at.other, at.one)):
            assert await ping(site, site.sandbox(own), there.address, largest)
            assert not await ping(site, site.sandbox(own), there.address, largest + 1)


async def test_a_stream_of_large_segments_arrives_whole(two: Hosts) -> None:
    at = await pair(two, network())
    sent, loop = bytes(range(256)) * 20_000, asyncio.get_running_loop()
    listener = await at.b.world.socket(at.b.sandbox(at.other), socket.SOCK_STREAM, ("0.0.0.0", 80))
    listener.listen()

    async def receive() -> bytes:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            return b"".join([chunk async for chunk in _chunks(connection)])

    with listener, await at.a.world.socket(at.a.sandbox(at.one), socket.SOCK_STREAM, None) as client:
        receiving = asyncio.create_task(receive())
        async with asyncio.timeout(20):
            await loop.sock_connect(client, (str(at.other.address), 80))
            await loop.sock_sendall(client, sent)
            client.shutdown(socket.SHUT_WR)
            assert await receiving == sent


async def _chunks(connection: socket.socket) -> AsyncIterator[bytes]:
    while chunk := await asyncio.get_running_loop().sock_recv(connection, 1 << 20):
        yield chunk


async def _addresses(site: Site, asker: PortConfig, name: str) -> list[str]:
    packet = await site.world.query(site.sandbox(asker), "10.1.0.1", DNSRecord.question(name).pack())
    assert packet is not None
    return sorted(str(record.rdata) for record in DNSRecord.parse(packet).rr)


async def test_names_of_replicas_elsewhere_resolve_while_they_are_up(two: Hosts) -> None:
    at = await pair(two, network())
    peers = two.peers(at.net, at.a)
    down = tuple(msgspec.structs.replace(one, up=False) for one in peers.ports)

    seen = [await _addresses(at.a, at.one, name) for name in ("other", "other-0.shop", "one")]
    await at.a.fabric.set_peers(msgspec.structs.replace(peers, generation=50, ports=down))

    assert seen == [["10.1.0.6"], ["10.1.0.6"], ["10.1.0.5"]]
    assert await _addresses(at.a, at.one, "other") == []
    await at.a.fabric.set_peers(msgspec.structs.replace(peers, generation=51, ports=()))
    assert await _addresses(at.a, at.one, "other") == []
    assert await _addresses(at.a, at.one, "one") == ["10.1.0.5"]


async def test_a_port_moves_to_another_host_with_its_address_and_mac(tmp_path: Path) -> None:
    async with hosts(tmp_path, 3) as three:
        net = network()
        await three.ensure(net)
        first, second, third = three.sites
        watcher, moving = await first.plug(port(net, 5)), await second.plug(port(net, 6))
        neighbour = await third.plug(port(net, 7))
        await three.tell(net)
        assert await ping(first, first.sandbox(watcher), moving.address)

        await second.unplug(moving)
        await third.plug(moving)
        await three.tell(net)

        for site, own in ((first, watcher), (third, neighbour)):
            assert await ping(site, site.sandbox(own), moving.address)
        assert await ping(third, third.sandbox(moving), watcher.address)
        assert {len(await site.fabric.networks()) for site in three.sites} == {1}


async def test_what_is_plugged_here_stays_here_until_it_is_unplugged(two: Hosts) -> None:
    """The peers may come before the move, and after it."""
    at = await pair(two, network())
    early = two.peers(at.net, at.a)
    await at.b.fabric.remove_sandbox(at.other.replica)
    await at.a.plug(at.other)

    assert await ping(at.a, at.a.sandbox(at.one), at.other.address)
    two.generation += 1
    await at.a.fabric.set_peers(msgspec.structs.replace(early, generation=two.generation))
    assert await ping(at.a, at.a.sandbox(at.one), at.other.address)
    assert await at.a.fabric.networks() == {at.net.id}

    await at.b.fabric.plug(at.other)
    await at.a.fabric.remove_sandbox(at.other.replica)
    assert await at.works()
    assert await _addresses(at.a, at.one, "other") == ["10.1.0.6"]


async def test_an_older_generation_changes_nothing(two: Hosts) -> None:
    at = await pair(two, network())

    with pytest.raises(Stale, match="is older than"):
        await at.a.fabric.set_peers(NetworkPeers(network=at.net.id, generation=two.generation - 1))

    assert await at.works()


async def test_peers_that_cannot_be_are_refused(two: Hosts, fabric: LocalFabric) -> None:
    at = await pair(two, network())
    known = two.peers(at.net, at.a)
    gateway_mac = inside(at.a.router(at.net), "cat", "/sys/class/net/br0/address").strip()
    wrong = {
        "itself among them": msgspec.structs.replace(known, hosts=(at.a.address,)),
        "a port on no host of it": msgspec.structs.replace(known, hosts=()),
        "two with one address": msgspec.structs.replace(
            known, ports=(*known.ports, remote(port(at.net, 6), at.b.address))
        ),
        "the gateway's MAC": msgspec.structs.replace(
            known, ports=(msgspec.structs.replace(known.ports[0], mac=gateway_mac),)
        ),
    }

    for peers in wrong.values():
        with pytest.raises(InvalidInput):
            await at.a.fabric.set_peers(peers)
    assert await at.works()
    await fabric.ensure_network(at.net)
    with pytest.raises(Unsupported, match="no underlay"):
        await fabric.set_peers(known)


@pytest.mark.parametrize(
    "damage",
    [
        ("bridge", "fdb", "del", "02:aa:00:00:01:06", "dev", "vx0", "self"),
        ("bridge", "fdb", "del", "02:aa:00:00:01:06", "dev", "vx0", "master"),
        ("ip", "neigh", "flush", "dev", "br0", "nud", "permanent"),
        ("ip", "link", "delete", "vx0"),
        ("ip", "link", "set", "vx0", "down"),
        ("ip", "link", "set", "vx0", "type", "bridge_slave", "learning", "on"),
        ("nft", "delete", "table", "bridge", "skep_overlay"),
        ("nft", "flush", "set", "bridge", "skep_overlay", "peers"),
    ],
    ids=" ".join,
)
async def test_damage_is_noticed_and_healed_without_control(two: Hosts, damage: tuple[str, ...]) -> None:
    at = await pair(two, network())
    inside(at.a.router(at.net), *damage)

    assert await at.a.fabric.networks() == set()
    await at.a.fabric.ensure_network(at.net)

    assert await at.a.fabric.networks() == {at.net.id}
    assert await at.works()


async def test_a_restart_of_the_agent_heals_what_broke_meanwhile(two: Hosts) -> None:
    at = await pair(two, network())
    await at.a.stop()
    assert await at.works()
    inside(at.a.router(at.net), "ip", "link", "delete", "vx0")
    assert not await at.works()

    await at.a.start()

    assert await at.works()
    assert (await at.a.fabric.peers())[at.net.id].generation == two.generation
    assert await _addresses(at.a, at.one, "other") == ["10.1.0.6"]


async def test_a_lost_router_comes_back_with_all_it_knew(two: Hosts) -> None:
    at = await pair(two, network())
    shell("ip", "netns", "delete", at.a.router(at.net).name)

    await at.a.fabric.ensure_network(at.net)
    await at.a.fabric.plug(at.one)

    assert await at.works()


async def test_a_deleted_network_leaves_nothing_and_its_number_is_free(two: Hosts) -> None:
    at = await pair(two, network())
    for site in two.sites:
        for own in tuple(site.plugged):
            await site.unplug(own)
        await site.fabric.delete_network(at.net.id)

    for site in two.sites:
        assert sorted(path.name for path in (site.world.data / "network").iterdir()) == ["host-host.json"]
        assert str(at.b.address) not in inside(at.a.world.host, "nft", "list", "ruleset")
        assert await site.fabric.peers() == {}
    assert await (await pair(two, network())).works()


async def test_a_published_port_leads_to_replicas_on_other_hosts(two: Hosts) -> None:
    at = await pair(two, network())
    await at.a.world.serve(at.a.sandbox(at.one), 8080, "one")
    await at.b.world.serve(at.b.sandbox(at.other), 8080, "other")
    both = publications(at.net, 80, 8080, (at.one.address, at.other.address))

    await at.a.fabric.publish(both)

    answers = {await at.a.world.ask(at.a.world.client, HOST, 80) for _ in range(30)}
    assert answers == {f"one {CLIENT}", f"other {router_address(at.a.address)}"}
    assert (await at.a.world.ask(at.a.world.host, "127.0.0.1", 80)).split()[0] in {"one", "other"}
    assert await at.a.fabric.published() == {both.service: both}


async def test_a_published_port_answers_the_machines_of_other_hosts(two: Hosts) -> None:
    """Whose addresses no replica may speak to of itself."""
    at = await pair(two, network())
    await at.a.world.serve(at.a.sandbox(at.one), 8080, "one")
    await at.a.fabric.publish(publications(at.net, 80, 8080, (at.one.address,)))
    await at.b.world.serve(at.b.world.host, 9000, "host")

    assert await at.b.world.ask(at.b.world.host, str(at.a.address), 80) == f"one {at.b.address}"
    assert await at.a.world.ask(at.a.sandbox(at.one), str(at.b.address), 9000) == "silence"


async def test_a_published_port_follows_its_replica_to_another_host(two: Hosts) -> None:
    at = await pair(two, network())
    await at.a.fabric.publish(publications(at.net, 80, 8080, (at.other.address,)))
    await at.b.world.serve(at.b.sandbox(at.other), 8080, "there")
    far = await at.a.world.ask(at.a.world.client, HOST, 80)

    await at.b.unplug(at.other)
    await at.a.plug(at.other)
    await two.tell(at.net)
    await at.a.world.serve(at.a.sandbox(at.other), 8080, "here")

    assert far == f"there {router_address(at.a.address)}"
    assert await at.a.world.ask(at.a.world.client, HOST, 80) == f"here {CLIENT}"


async def test_a_full_network_grows_by_a_subnet_under_what_runs(two: Hosts) -> None:
    """Old and new replicas reach each other on every host, and their gateways; nobody is plugged again."""
    at = await pair(two, network())
    more = HostSubnet(cidr=IPv4Network("10.7.0.0/24"), gateway=IPv4Address("10.7.0.1"))
    wide = msgspec.structs.replace(at.net, more=(more,))
    before = inside(at.a.sandbox(at.one), "ip", "-o", "link", "show", "eth0")

    await two.ensure(wide)
    here, there = [
        await site.plug(
            msgspec.structs.replace(port(wide, number, names=(f"new-{number}",)), address=more.cidr[number])
        )
        for number, site in enumerate(two.sites, 8)
    ]
    await two.tell(wide)

    assert inside(at.a.sandbox(at.one), "ip", "-o", "link", "show", "eth0") == before
    for site, own in ((at.a, at.one), (at.a, here), (at.b, at.other), (at.b, there)):
        for target in (at.one.address, at.other.address, here.address, there.address):
            assert await ping(site, site.sandbox(own), target)
        for gateway in (at.net.gateway, more.gateway):
            assert await ping(site, site.sandbox(own), gateway)
    for site in two.sites:
        assert await site.fabric.networks() == {wide.id}
        assert await site.fabric.ports() == {nic.id for nic in site.plugged}
    question = DNSRecord.question("8.0.7.10.in-addr.arpa", "PTR").pack()
    answer = await at.b.world.query(at.b.sandbox(at.other), "10.1.0.1", question)
    assert answer is not None
    assert str(DNSRecord.parse(answer).a.rdata) == "new-8.shop."


async def test_a_route_to_a_subnet_that_is_lost_is_found_and_made_again(two: Hosts) -> None:
    more = HostSubnet(cidr=IPv4Network("10.7.0.0/24"), gateway=IPv4Address("10.7.0.1"))
    at = await pair(two, msgspec.structs.replace(network(), more=(more,)))
    inside(at.a.sandbox(at.one), "ip", "route", "delete", "10.7.0.0/24")
    inside(at.b.router(at.net), "ip", "address", "delete", "10.7.0.1/24", "dev", "br0")
    seen = [await site.fabric.ports() for site in two.sites], await at.b.fabric.networks()

    await at.a.fabric.plug(at.one)
    await at.b.fabric.ensure_network(at.net)

    assert seen == ([set(), {at.other.id}], set())
    assert await at.a.fabric.ports() == {at.one.id}
    assert await at.b.fabric.networks() == {at.net.id}

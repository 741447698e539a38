"""Networks of both families: who reaches whom by IPv6, and what may be said of neighbours."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from dnslib import DNSRecord
from tests.providers.network.conftest import (
    CLIENT6,
    HOST6,
    World,
    dual,
    dual_port,
    inside,
    network,
    port,
    publications,
)
from tests.providers.network.hosts import Hosts, hosts, ping

from skep.model.errors import Unsupported
from skep.model.groups import GroupRule
from skep.model.host import GroupPolicy, GuardedPort, NetworkGuards
from skep.model.ids import GroupId
from skep.providers.local.network import LocalFabric, teardown
from skep.providers.local.network.naming import Names

pytestmark = pytest.mark.root


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with hosts(tmp_path, 2) as made:
        yield made


async def test_replicas_reach_each_other_their_gateway_and_the_world(
    world: World, fabric: LocalFabric
) -> None:
    net = dual(network())
    one, other = dual_port(net, 5), dual_port(net, 6)
    await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(one), fabric.plug(other))
    await world.serve(fabric.sandbox(other.replica), 80, "other", "::")
    await world.serve(world.client, 80, "world", "::")

    assert await world.ask(fabric.sandbox(one.replica), "fd00:1::6", 80) == "other fd00:1::5"
    assert await world.ask(fabric.sandbox(one.replica), CLIENT6, 80) == f"world {HOST6}"
    assert await fabric.networks() == {net.id}
    assert await fabric.ports() == {one.id, other.id}
    assert "fe80" not in inside(fabric.sandbox(one.replica), "ip", "-6", "address", "show", "eth0")


async def test_two_hosts_share_a_network_of_both_families(two: Hosts) -> None:
    net = dual(network())
    await two.ensure(net)
    a, b = two.sites
    one, other = await a.plug(dual_port(net, 5)), await b.plug(dual_port(net, 6, names=("web-0", "web")))
    await two.tell(net)
    await b.world.serve(b.sandbox(other), 80, "other", "::")

    assert one.address6
    assert other.address6
    assert await ping(a, a.sandbox(one), other.address6)
    assert await ping(b, b.sandbox(other), one.address6)
    assert await ping(a, a.sandbox(one), other.address6, size=1450 - 48)
    assert not await ping(a, a.sandbox(one), other.address6, size=1451 - 48)
    assert await a.world.ask(a.sandbox(one), "fd00:1::6", 80) == "other fd00:1::5"
    for site, own in ((a, one), (b, other)):
        assert net.ipv6
        assert await ping(site, site.sandbox(own), net.ipv6.gateway)
        assert await site.fabric.networks() == {net.id}
    await b.unplug(other)
    again = await a.plug(other)
    await two.tell(net)
    assert await ping(a, a.sandbox(one), other.address6)
    assert await a.fabric.ports() == {one.id, again.id}


async def test_only_the_link_is_looked_for_as_neighbours(world: World, fabric: LocalFabric) -> None:
    net = dual(network())
    one = dual_port(net, 5)
    await fabric.ensure_network(net)
    await fabric.plug(one)
    beyond, router = "fd00:1::9:0:0:1", Names(world.instance).router(net.id)

    assert await world.ask(fabric.sandbox(one.replica), "fd00:1::77", 80) in ("silence", "refused")
    assert await world.ask(fabric.sandbox(one.replica), beyond, 80) == "silence"

    for place in (fabric.sandbox(one.replica), router, world.host):
        assert beyond not in inside(place, "ip", "-6", "neigh")
    assert "fd00:1::77" in inside(fabric.sandbox(one.replica), "ip", "-6", "neigh")


async def test_names_lead_to_both_addresses_and_back(two: Hosts) -> None:
    net = dual(network())
    await two.ensure(net)
    a, b = two.sites
    one, other = (
        await a.plug(dual_port(net, 5, names=("one-0",))),
        await b.plug(dual_port(net, 6, names=("web-0", "web"))),
    )
    plain = await a.plug(port(net, 7, names=("plain-0",)))
    await two.tell(net)

    async def asked(name: str, kind: str) -> list[str]:
        packet = await a.world.query(a.sandbox(one), "10.1.0.1", DNSRecord.question(name, kind).pack())
        assert packet is not None
        return [str(record.rdata) for record in DNSRecord.parse(packet).rr]

    assert await asked("web", "AAAA") == ["fd00:1::6"]
    assert await asked("web", "A") == ["10.1.0.6"]
    assert await asked("plain-0", "AAAA") == []
    assert other.address6
    assert await asked(other.address6.reverse_pointer, "PTR") == ["web.shop."]
    assert await asked("1.0.0.0" + ".0" * 28 + ".ip6.arpa", "PTR") == []
    assert plain.address6 is None


async def test_ipv6_joins_a_network_that_is_in_use(world: World, fabric: LocalFabric) -> None:
    net = network()
    old = port(net, 5)
    await fabric.ensure_network(net)
    await fabric.plug(old)
    uplink = inside(world.host, "ip", "-o", "link", "show", Names(world.instance).uplink(net.id))
    await world.serve(world.client, 80, "world", "::")

    wide = dual(net)
    await fabric.ensure_network(wide)
    new = dual_port(wide, 6)
    await fabric.plug(new)

    assert await fabric.networks() == {net.id}
    assert await fabric.ports() == {old.id, new.id}
    assert await world.ask(fabric.sandbox(new.replica), CLIENT6, 80) == f"world {HOST6}"
    assert uplink == inside(world.host, "ip", "-o", "link", "show", Names(world.instance).uplink(net.id))


async def test_an_internal_network_has_no_way_out_by_ipv6(world: World, fabric: LocalFabric) -> None:
    net = dual(network(internal=True))
    one, other = dual_port(net, 5), dual_port(net, 6)
    await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(one), fabric.plug(other))
    await world.serve(world.client, 80, "world", "::")
    await world.serve(fabric.sandbox(other.replica), 80, "other", "::")

    assert await world.ask(fabric.sandbox(one.replica), CLIENT6, 80) != f"world {HOST6}"
    assert await world.ask(fabric.sandbox(one.replica), "fd00:1::6", 80) == "other fd00:1::5"
    assert inside(world.host, "sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "0"


async def test_tenants_do_not_meet_by_ipv6_nor_reach_the_host(world: World, fabric: LocalFabric) -> None:
    ours, theirs = dual(network(1)), dual(network(2))
    mine, other = dual_port(ours, 5), dual_port(theirs, 6)
    for net in (ours, theirs):
        await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(mine), fabric.plug(other))
    await world.serve(fabric.sandbox(other.replica), 80, "other", "::")
    await world.serve(world.host, 81, "host", "::")
    sandbox = fabric.sandbox(mine.replica)

    assert await world.ask(sandbox, "fd00:1::6", 80) != "other fd00:1::5"
    for address in (HOST6, "fd73:6b65:7000::6442:5", "fd73:6b65:7000::6442:9"):
        assert await world.ask(sandbox, address, 81) in ("silence", "refused")
    inside(world.host, "ip", "-6", "route", "add", "fd00:1::6/128", "via", "fd73:6b65:7000::6442:a")
    assert await world.ask(sandbox, "fd73:6b65:7000::6442:a", 80) == "silence"


async def test_published_ports_listen_on_both_families_of_the_host(two: Hosts) -> None:
    net = dual(network())
    await two.ensure(net)
    a, b = two.sites
    here, there = await a.plug(dual_port(net, 5)), await b.plug(dual_port(net, 6))
    await two.tell(net)
    for site, nic in ((a, here), (b, there)):
        await site.world.serve(site.sandbox(nic), 80, "six", "::")
    assert here.address6
    assert there.address6

    await a.fabric.publish(publications(net, 8080, 80, (here.address,), addresses6=(here.address6,)))
    assert await a.world.ask(a.world.client, HOST6, 8080) == f"six {CLIENT6}"
    assert await a.world.ask(a.world.host, HOST6, 8080) == f"six {HOST6}"
    assert await a.world.ask(a.world.host, "::1", 8080) == "refused"
    with pytest.raises(Unsupported, match="say 127"):
        await a.fabric.publish(publications(net, 8082, 80, (here.address,), "::1"))

    await a.fabric.publish(publications(net, 8081, 80, (there.address,), HOST6, addresses6=(there.address6,)))
    said = await a.world.ask(a.world.client, HOST6, 8081)
    assert said.startswith("six fd73:6b65:7001::")
    assert len(await a.fabric.published()) == 2


async def test_groups_guard_both_families(two: Hosts) -> None:
    net = dual(network())
    await two.ensure(net)
    a, b = two.sites
    friend, stranger = await a.plug(dual_port(net, 5)), await a.plug(dual_port(net, 7))
    web = await b.plug(dual_port(net, 6))
    await two.tell(net)
    assert web.address6
    assert friend.address6
    for number in (80, 81):
        await b.world.serve(b.sandbox(web), number, "web", "::")
    clients, open_ = GroupId("clients"), GroupId("web")
    rules = (
        GroupRule(protocol="tcp", ports="80", group=clients),
        GroupRule(protocol="tcp", ports="81", cidr="fd00:1::7/128"),
        GroupRule(protocol="icmp", cidr="fd00:1::5/128"),
    )

    await b.fabric.set_guards(
        NetworkGuards(
            network=net.id,
            generation=1,
            ports=(GuardedPort(address=web.address, address6=web.address6, groups=(open_,)),),
            groups=(
                GroupPolicy(id=open_, rules=rules),
                GroupPolicy(id=clients, members=(friend.address,), members6=(friend.address6,)),
            ),
        )
    )

    said = {
        (nic.address.packed[3], number): await a.world.ask(a.sandbox(nic), "fd00:1::6", number)
        for nic in (friend, stranger)
        for number in (80, 81)
    }
    assert said == {
        (5, 80): "web fd00:1::5",
        (5, 81): "silence",
        (7, 80): "silence",
        (7, 81): "web fd00:1::7",
    }
    assert await ping(a, a.sandbox(friend), web.address6)
    assert not await ping(a, a.sandbox(stranger), web.address6)
    assert await ping(b, b.sandbox(web), friend.address6)
    assert await b.fabric.networks() == {net.id}


async def test_teardown_puts_forwarding_and_router_advertisements_back(tmp_path: Path, world: World) -> None:
    def switches() -> list[str]:
        names = ("net.ipv6.conf.all.forwarding", "net.ipv6.conf.out.accept_ra", "net.ipv4.ip_forward")
        return [inside(world.host, "sysctl", "-n", name).strip() for name in names]

    before = switches()
    async with world.open() as fabric:
        await fabric.ensure_network(network())
        plain = switches()
        await fabric.ensure_network(dual(network(2, "10.2.0.0/24")))
        there = switches()

    await teardown(world.instance, tmp_path, purge=True, host=world.host)

    assert before[:2] == plain[:2] == ["0", "1"]
    assert there == ["1", "2", "1"]
    assert switches() == before


async def test_what_is_damaged_of_ipv6_is_found_and_made_again(world: World, fabric: LocalFabric) -> None:
    net = dual(network())
    one = dual_port(net, 5)
    await fabric.ensure_network(net)
    await fabric.plug(one)
    router, sandbox = Names(world.instance).router(net.id), fabric.sandbox(one.replica)

    inside(sandbox, "ip", "-6", "route", "delete", "default")
    without_route = await fabric.ports()
    await fabric.plug(one)
    inside(router, "nft", "flush", "set", "bridge", "skep", "advertised")
    without_element = await fabric.ports()
    await fabric.plug(one)
    inside(router, "ip", "-6", "address", "delete", "fd00:1::1/112", "dev", "br0")
    without_gateway = await fabric.networks()
    await fabric.ensure_network(net)

    assert (without_route, without_element, without_gateway) == (set(), set(), set())
    assert await fabric.ports() == {one.id}
    assert await fabric.networks() == {net.id}


async def test_what_is_private_is_hidden_from_tenants(world: World) -> None:
    await world.serve(world.client, 80, "world", "::")
    net = dual(network())
    said = []
    for private in ((), (IPv6Network("2001:db8::/64"),)):
        async with world.open(private6=private) as fabric:
            one = dual_port(net, 5)
            await fabric.ensure_network(net)
            await fabric.plug(one)
            said.append(await world.ask(fabric.sandbox(one.replica), CLIENT6, 80))
            await fabric.remove_sandbox(one.replica)

    assert said == [f"world {HOST6}", "silence"]

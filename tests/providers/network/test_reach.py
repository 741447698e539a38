"""Who reaches whom."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.providers.network.conftest import CLIENT, HOST, World, inside, network, port, shell

from skep.providers.local.network import LocalFabric, teardown

pytestmark = pytest.mark.root


async def test_replicas_of_a_network_reach_each_other(world: World, fabric: LocalFabric) -> None:
    net = network()
    one, two = port(net, 5), port(net, 6)
    await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(one), fabric.plug(two))
    await world.serve(fabric.sandbox(two.replica), 80, "two")

    assert await world.ask(fabric.sandbox(one.replica), "10.1.0.6", 80) == "two 10.1.0.5"


async def test_a_replica_reaches_the_world_under_the_hosts_address(world: World, fabric: LocalFabric) -> None:
    net = network()
    one = port(net, 5)
    await fabric.ensure_network(net)
    await fabric.plug(one)
    await world.serve(world.client, 80, "world")

    assert await world.ask(fabric.sandbox(one.replica), CLIENT, 80) == f"world {HOST}"


async def test_an_internal_network_has_no_way_out(world: World, fabric: LocalFabric) -> None:
    net = network(internal=True)
    one, two = port(net, 5), port(net, 6)
    await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(one), fabric.plug(two))
    await world.serve(world.client, 80, "world")
    await world.serve(fabric.sandbox(two.replica), 80, "two")

    assert await world.ask(fabric.sandbox(one.replica), CLIENT, 80) != f"world {HOST}"
    assert await world.ask(fabric.sandbox(one.replica), "10.1.0.6", 80) == "two 10.1.0.5"
    assert await fabric.networks() == {net.id}


async def test_tenants_with_the_same_subnet_live_apart(world: World, fabric: LocalFabric) -> None:
    ours, theirs = network(1), network(2)
    mine, other = port(ours, 5), port(theirs, 6)
    for net in (ours, theirs):
        await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(mine), fabric.plug(other))
    await world.serve(fabric.sandbox(other.replica), 80, "other")

    assert await world.ask(fabric.sandbox(mine.replica), "10.1.0.6", 80) != "other 10.1.0.5"
    # Their router's link address is one hop beyond our own.
    inside(world.host, "ip", "route", "add", "10.1.0.6/32", "via", "100.66.0.10")
    assert await world.ask(fabric.sandbox(mine.replica), "100.66.0.10", 80) == "silence"


async def test_a_tenant_cannot_reach_the_host_itself(world: World, fabric: LocalFabric) -> None:
    net = network()
    one = port(net, 5)
    await fabric.ensure_network(net)
    await fabric.plug(one)
    await world.serve(world.host, 9000, "host")

    assert await world.ask(world.client, HOST, 9000) == f"host {CLIENT}"
    for address in (HOST, "100.66.0.5", "10.1.0.1"):
        assert await world.ask(fabric.sandbox(one.replica), address, 9000) == "silence"


async def test_a_port_keeps_its_address_and_mac_when_plugged_again(world: World, fabric: LocalFabric) -> None:
    net = network()
    one = port(net, 5)
    await fabric.ensure_network(net)
    seen = []
    for _ in range(2):
        await fabric.plug(one)
        await fabric.plug(one)
        seen.append(inside(fabric.sandbox(one.replica), "ip", "-brief", "address", "show", "eth0").split()[2])
        mac = inside(fabric.sandbox(one.replica), "cat", "/sys/class/net/eth0/address").strip()
        await fabric.unplug(one.id)
        await fabric.unplug(one.id)
        assert await fabric.ports() == set()

    assert seen == ["10.1.0.5/24", "10.1.0.5/24"]
    assert mac == one.mac


async def test_a_replica_may_have_ports_on_two_networks(world: World, fabric: LocalFabric) -> None:
    first, second = network(1), network(2, "10.2.0.0/24")
    one = port(first, 5)
    extra = port(second, 7, interface="eth1")
    both = msgspec.structs.replace(extra, replica=one.replica, default_route=False)
    for net in (first, second):
        await fabric.ensure_network(net)
    await asyncio.gather(fabric.plug(one), fabric.plug(both))

    assert await fabric.ports() == {one.id, both.id}
    assert await fabric.sandboxes() == {one.replica}


async def test_fifty_plugs_at_once_leave_a_mount_each(world: World, fabric: LocalFabric) -> None:
    net = network()
    ports = [port(net, number) for number in range(10, 60)]
    await fabric.ensure_network(net)
    before = _mounts(world)

    await asyncio.gather(*(fabric.plug(one) for one in ports))

    assert await fabric.ports() == {one.id for one in ports}
    assert _mounts(world) - before <= 50  # one mount per namespace: nothing stacks up
    await asyncio.gather(*(fabric.remove_sandbox(one.replica) for one in ports))
    assert await fabric.sandboxes() == set()


async def test_teardown_leaves_nothing_behind(world: World) -> None:
    before = _traces(world)
    net = network()
    async with world.open() as fabric:
        await fabric.ensure_network(net)
        await fabric.plug(port(net, 5))
        assert _traces(world) != before

    await teardown(world.instance, world.data, purge=True, host=world.host)

    assert _traces(world) == before
    assert not (world.data / "network").exists()
    await teardown(world.instance, world.data, purge=True, host=world.host)


def _traces(world: World) -> tuple[str, ...]:
    names = [name for name in shell("ip", "netns").split() if name.startswith(world.instance)]
    return (
        " ".join(sorted(names)),
        inside(world.host, "ip", "-brief", "link"),
        inside(world.host, "nft", "list", "ruleset"),
        inside(world.host, "cat", "/proc/sys/net/ipv4/ip_forward"),
    )


def _mounts(world: World) -> int:
    """Its own: others work at the same time."""
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [row.split(" ")[4] for row in rows]
    assert points.count("/run/netns") <= 1
    return sum(point.startswith(f"/run/netns/{world.instance}") for point in points)

"""A network leaves by its egress address, whatever host a replica is on; real hosts, and a real outside."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from tests.providers.network.conftest import CLIENT, HOST, QUICK, World, inside, network, port
from tests.providers.network.hosts import Hosts, Site, hosts

from skep.model.errors import InvalidInput, Unsupported
from skep.model.groups import GroupRule
from skep.model.host import Egress, GroupPolicy, GuardedPort, NetworkGuards, NetworkPeers, PortConfig
from skep.model.ids import GroupId
from skep.providers.local.network import LocalFabric, teardown
from skep.providers.local.network.naming import NETNS

OUTSIDE, FIXED = "198.51.100.250", IPv4Address("198.51.100.200")
NET = network()


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Hosts]:
    """Three hosts; what lies between them plays the outside, too, and answers whoever asks who it is."""
    async with hosts(tmp_path, 3) as made:
        await made.ensure(NET)
        inside(outside(made), "ip", "address", "add", f"{OUTSIDE}/24", "dev", "under")
        await made.sites[0].world.serve(outside(made), 80, "saw", OUTSIDE)
        yield made


def outside(made: Hosts) -> Path:
    return NETNS / f"{made.sites[0].world.instance}u"


async def lead(made: Hosts, holder: Site | None, address: IPv4Address = FIXED) -> None:
    """Play control: tell every host who has the address."""
    made.generation += 1
    for site in made.sites:
        via = holder.address if holder is not None and holder is not site else None
        told = Egress(address=address, here=site is holder, via=via)
        await site.fabric.set_peers(msgspec.structs.replace(made.peers(NET, site), egress=told))


async def asks(site: Site, nic: PortConfig, patience: float = 30.0) -> str:
    """What is said to it; a busy machine needs longer for an answer than a quiet one for silence."""
    return await site.world.ask(site.sandbox(nic), OUTSIDE, 80, patience)


async def test_replicas_of_all_hosts_leave_by_the_address_that_one_of_them_has(three: Hosts) -> None:
    a, b, _ = three.sites
    here, there = await a.plug(port(NET, 5)), await b.plug(port(NET, 6))
    await three.tell(NET)
    before = await asks(b, there)

    await lead(three, a)

    assert before == f"saw {b.address}"
    assert await asks(a, here) == await asks(b, there) == f"saw {FIXED}"


async def test_another_host_takes_the_address_over_when_the_one_that_had_it_is_lost(three: Hosts) -> None:
    a, b, c = three.sites
    nic = await b.plug(port(NET, 6))
    await lead(three, a)
    first = await asks(b, nic)
    inside(a.world.host, "ip", "link", "set", "under", "down")
    three.sites.remove(a)

    lost = await asks(b, nic, QUICK)
    await lead(three, c)

    assert (first, lost, await asks(b, nic)) == (f"saw {FIXED}", "silence", f"saw {FIXED}")


async def test_nothing_leaves_while_nobody_has_the_address(three: Hosts) -> None:
    a, b, _ = three.sites
    nic, near = await b.plug(port(NET, 6)), await a.plug(port(NET, 5))
    await a.world.serve(a.sandbox(near), 81, "near")

    await lead(three, None)

    assert await asks(b, nic, QUICK) == "silence"
    assert await b.world.ask(b.sandbox(nic), str(near.address), 81) == "near 10.1.0.6"


async def test_it_outlives_a_restart_of_the_agents_and_is_whole(three: Hosts) -> None:
    a, b, _ = three.sites
    nic = await b.plug(port(NET, 6))
    await lead(three, a)
    for site in (a, b):
        await site.stop()

    for site in (a, b):
        await site.start()

    assert await asks(b, nic) == f"saw {FIXED}"
    assert await a.fabric.networks() == await b.fabric.networks() == {NET.id}


async def test_what_was_damaged_is_noticed_and_mended(three: Hosts) -> None:
    a, b, _ = three.sites
    nic = await b.plug(port(NET, 6))
    await lead(three, a)
    inside(a.world.host, "ip", "address", "delete", f"{FIXED}/32", "dev", "under")
    inside(b.router(NET), "ip", "route", "flush", "table", "233")
    damaged = await a.fabric.networks(), await b.fabric.networks()

    for site in (a, b):
        await site.fabric.ensure_network(NET)

    assert damaged == (set(), set())
    assert await asks(b, nic) == f"saw {FIXED}"


async def test_an_address_that_is_given_up_is_gone_and_so_it_is_after_teardown(three: Hosts) -> None:
    a, b, _ = three.sites
    nic = await b.plug(port(NET, 6))
    await lead(three, a)
    had = held(a)
    await lead(three, b)
    moved = held(a), held(b)
    await b.stop()

    await teardown(b.world.instance, b.world.data, host=b.world.host)

    assert (had, moved, held(b)) == (True, (False, True), False)
    await b.start()
    assert not held(b)  # as after a boot: it may be another host's by now
    await b.fabric.ensure_network(NET)
    assert held(b)
    await three.tell(NET)
    assert not held(b)
    await b.fabric.ensure_network(NET)
    await b.plug(nic)
    b.plugged.pop()
    assert await asks(b, nic) == f"saw {b.address}"


def held(site: Site) -> bool:
    return str(FIXED) in inside(site.world.host, "ip", "-o", "address", "show", "dev", "under")


async def test_what_the_host_itself_serves_is_not_found_at_the_address(three: Hosts) -> None:
    a, _, _ = three.sites
    await a.world.serve(a.world.host, 8022, "host")

    await lead(three, a)

    assert await a.world.ask(outside(three), str(a.address), 8022) == f"host {OUTSIDE}"
    assert await a.world.ask(outside(three), str(FIXED), 8022) == "silence"


async def test_other_networks_of_the_hosts_leave_as_before(three: Hosts) -> None:
    a, b, _ = three.sites
    other = network(2)
    await three.ensure(other)
    nics = [(site, await site.plug(port(other, 7 + number))) for number, site in enumerate((a, b))]

    await lead(three, a)

    assert [await asks(site, nic) for site, nic in nics] == [f"saw {a.address}", f"saw {b.address}"]


async def test_who_leads_outside_must_be_a_host_of_the_network_with_an_underlay(three: Hosts) -> None:
    a, _, _ = three.sites
    stranger = Egress(address=FIXED, via=IPv4Address("198.51.100.77"))
    told = NetworkPeers(network=NET.id, generation=99, egress=stranger)

    with pytest.raises(InvalidInput, match=r"198\.51\.100\.77"):
        await a.fabric.set_peers(told)

    await a.stop()
    async with a.world.open() as alone:
        with pytest.raises(Unsupported):
            await alone.set_peers(told)


async def test_security_groups_let_it_pass_and_still_decide(three: Hosts) -> None:
    a, b, _ = three.sites
    nic, other = await b.plug(port(NET, 6)), await b.plug(port(NET, 7))
    await lead(three, a)
    shut = GroupRule(direction="egress", protocol="tcp", ports="81", cidr="0.0.0.0/0")
    groups = (GroupPolicy(id=GroupId("open")), GroupPolicy(id=GroupId("shut"), rules=(shut,)))
    ports = tuple(
        GuardedPort(address=one.address, groups=(group.id,))
        for one, group in zip((nic, other), groups, strict=True)
    )

    await b.fabric.set_guards(NetworkGuards(network=NET.id, generation=1, ports=ports, groups=groups))

    assert (await asks(b, nic), await asks(b, other, QUICK)) == (f"saw {FIXED}", "silence")


async def test_a_host_that_is_alone_leads_its_networks_itself(world: World, fabric: LocalFabric) -> None:
    nic, fixed = port(NET, 5), IPv4Address("192.0.2.50")
    await fabric.ensure_network(NET)
    await fabric.plug(nic)
    await world.serve(world.client, 80, "saw")
    before = await world.ask(fabric.sandbox(nic.replica), CLIENT, 80)

    await fabric.set_peers(
        NetworkPeers(network=NET.id, generation=1, egress=Egress(address=fixed, here=True))
    )

    assert before == f"saw {HOST}"
    assert await world.ask(fabric.sandbox(nic.replica), CLIENT, 80) == f"saw {fixed}"
    assert await fabric.networks() == {NET.id}

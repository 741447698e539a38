"""Networks of several subnets: made so, or grown while they are in use."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.samples import network_row
from tests.control.simulation import app, service

from skep.control.callers import Caller, Role
from skep.control.plans.specifications import network_config
from skep.control.plans.subnets import join
from skep.control.reconcilers.widening import Widening
from skep.control.telling.guards import guard_maps
from skep.flow import RunId, RunState
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.groups import GroupRule
from skep.model.host import NetworkConfig
from skep.model.ids import GroupId, HostName, NetworkId, TenantId
from skep.model.spec import AppNetwork, AppSpec, AppSubnet, NetworkAttachment
from skep.model.views.networks import SubnetView
from skep.store.groups import GroupRow, MemberRow

ATTACHED = NetworkAttachment()
SMALL, NEXT = "10.1.0.0/29", AppSubnet(subnet="10.2.0.0/24")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2) as made:
        yield made


@pytest.fixture
async def owner(house: Installation) -> Caller:
    """With a network that has room for five."""
    made = await house.person("olga", Role.MEMBER)
    await house.control.networks.create(made, "back", subnet=SMALL)
    return made


def on(name: str, replicas: int) -> AppSpec:
    return joining(name, "back", replicas)


def joining(name: str, network: str, replicas: int) -> AppSpec:
    made = app(
        name,
        web=msgspec.structs.replace(
            service(replicas=replicas, endpoint_mode="dnsrr"), networks={"n": ATTACHED}
        ),
    )
    return msgspec.structs.replace(made, networks={"n": AppNetwork(external=network)})


async def put(house: Installation, caller: Caller, spec: AppSpec) -> None:
    await house.finish(await house.control.apps.apply(caller, spec))


async def test_a_network_that_is_full_takes_a_subnet_and_goes_on(house: Installation, owner: Caller) -> None:
    await put(house, owner, on("first", 5))
    accepted = await house.control.apps.apply(owner, on("second", 2))
    full = await house.flows.wait(RunId(str(accepted.run)), 30)

    await house.finish(await house.control.networks.add_subnet(owner, "back", NEXT))
    await put(house, owner, on("second", 2))

    assert full.state is RunState.FAILED
    assert "skep net subnet add" in str(full.error)
    shown = await house.control.networks.show(owner, "back")
    assert [port.address for port in shown.ports] == [
        *(f"10.1.0.{number}" for number in range(2, 7)),
        "10.2.0.2",
        "10.2.0.3",
    ]
    assert shown.subnets == [
        SubnetView(subnet=SMALL, gateway="10.1.0.1", used=5, reserved=0, free=0),
        SubnetView(subnet="10.2.0.0/24", gateway="10.2.0.1", used=2, reserved=0, free=251),
    ]
    assert (shown.used, shown.free) == (7, 251)
    (listed,) = await house.control.networks.list(owner)
    assert (listed.subnet, listed.subnets) == (SMALL, [SMALL, "10.2.0.0/24"])


async def test_every_host_of_the_network_hears_of_its_new_subnet(house: Installation, owner: Caller) -> None:
    await put(house, owner, on("first", 4))

    await house.finish(await house.control.networks.add_subnet(owner, "back", NEXT))

    for host in house.hosts.values():
        (known,) = host.fabric.known_networks().values()
        assert [str(one.cidr) for one in known.subnets] == [SMALL, "10.2.0.0/24"]


async def test_addresses_are_reserved_in_any_subnet_but_not_across_two(
    house: Installation, owner: Caller
) -> None:
    await house.finish(await house.control.networks.add_subnet(owner, "back", NEXT))
    await house.control.reservations.add(owner, "back", "10.2.0.8/30")

    with pytest.raises(InvalidInput, match=r"not in subnet 10\.1\.0\.0/29, 10\.2\.0\.0/24"):
        await house.control.reservations.add(owner, "back", "10.1.0.4-10.2.0.4")

    shown = await house.control.networks.show(owner, "back")
    assert [one.reserved for one in shown.subnets] == [0, 4]


async def test_subnets_do_not_overlap_those_of_the_tenants_other_networks(
    house: Installation, owner: Caller
) -> None:
    networks = house.control.networks
    await networks.create(owner, "wide", subnet="10.3.0.0/24", more=[AppSubnet(subnet="10.4.0.0/24")])

    for taken in ("10.3.0.128/25", "10.4.0.0/16", SMALL):
        with pytest.raises(Conflict, match="overlaps"):
            await networks.add_subnet(owner, "back", AppSubnet(subnet=taken))
    with pytest.raises(Conflict, match="overlaps"):
        await networks.create(owner, "more", subnet="10.4.0.0/25")
    with pytest.raises(NotFound):
        await networks.add_subnet(owner, "nothing", NEXT)


async def test_an_app_that_names_a_subnet_its_network_lacks_is_told_how_to_add_it(
    house: Installation, owner: Caller
) -> None:
    wanted = app(web=msgspec.structs.replace(service(), networks={"own": ATTACHED}))
    one = msgspec.structs.replace(wanted, networks={"own": AppNetwork(subnet="10.5.0.0/24")})
    two = msgspec.structs.replace(
        wanted, networks={"own": AppNetwork(subnet="10.5.0.0/24", subnets=(AppSubnet(subnet="10.6.0.0/24"),))}
    )
    await put(house, owner, one)
    with pytest.raises(Conflict, match=r"skep net subnet add shop_own 10\.6\.0\.0/24"):
        await house.control.apps.apply(owner, two)

    await house.finish(
        await house.control.networks.add_subnet(owner, "shop_own", AppSubnet(subnet="10.6.0.0/24"))
    )

    await put(house, owner, two)
    await put(house, owner, one)


async def test_a_host_that_was_away_is_told_once_when_it_is_back(house: Installation) -> None:
    host, name = house.host, HostName("away")
    row = network_row("back")
    await host.fabric.ensure_network(network_config(row))
    widening, grown = Widening(), join(row, [("10.2.0.0/24", None)], [])
    told: list[NetworkConfig] = []

    for rows in ([row], [grown], [grown]):
        await widening.reconcile(name, host, rows, await host.fabric.networks())
        told += host.fabric.known_networks().values()

    assert [len(config.subnets) for config in told] == [1, 2, 2]
    elsewhere = msgspec.structs.replace(grown, id=NetworkId("elsewhere"))
    await widening.reconcile(name, host, [elsewhere], await host.fabric.networks())
    assert await host.fabric.networks() == {row.id}


def test_a_host_is_told_every_subnet_with_its_gateway() -> None:
    row = join(network_row("back"), [("10.2.0.0/24", "10.2.0.9")], [])

    config = network_config(row)

    assert [(str(one.cidr), str(one.gateway)) for one in config.subnets] == [
        ("10.1.0.0/24", "10.1.0.1"),
        ("10.2.0.0/24", "10.2.0.9"),
    ]
    assert config.fits(IPv4Address("10.2.0.1"))
    assert not config.fits(IPv4Address("10.2.0.9"))
    assert config.home(IPv4Address("10.9.0.1")) is None


def test_a_network_of_the_release_before_reads_as_it_did() -> None:
    old = b'{"id":"n","tenant":"t","name":"default","subnet":"10.1.0.0/24","gateway":"10.1.0.1","index":1}'

    read = msgspec.json.decode(old, type=NetworkConfig, dec_hook=lambda kind, text: kind(text))

    assert (read.subnets[0].cidr, read.more) == (IPv4Network("10.1.0.0/24"), ())
    assert msgspec.json.encode(read, enc_hook=str) == old


async def test_a_network_of_both_families_gives_each_replica_two_addresses(
    house: Installation, owner: Caller
) -> None:
    six = AppSubnet(subnet="fd00:1::/64")
    await house.control.networks.create(owner, "dual", subnet="10.9.0.0/24", more=[six])
    place = NetworkAttachment(ipv6_address="fd00:1::9")
    fixed = app("fixed", web=msgspec.structs.replace(service(endpoint_mode="dnsrr"), networks={"n": place}))
    await put(house, owner, msgspec.structs.replace(fixed, networks={"n": AppNetwork(external="dual")}))
    await put(house, owner, joining("other", "dual", 2))

    shown = await house.control.networks.show(owner, "dual")
    assert {(port.address, port.address6) for port in shown.ports} == {
        ("10.9.0.2", "fd00:1::9"),
        ("10.9.0.3", "fd00:1::2"),
        ("10.9.0.4", "fd00:1::3"),
    }
    assert (shown.used, shown.free) == (3, 250)
    assert [(one.subnet, one.used, one.free) for one in shown.subnets] == [
        ("10.9.0.0/24", 3, 250),
        ("fd00:1::/64", 3, 65_530),
    ]
    plugged = {
        str(port.address6) for host in house.hosts.values() for port in host.fabric.known_ports().values()
    }
    assert plugged == {"fd00:1::9", "fd00:1::2", "fd00:1::3"}
    views = await house.control.networks.ports(owner, "dual")
    assert {view.address6 for view in views} == plugged
    assert {place.address6 for place in await house.control.networks.map(owner, "dual")} == plugged


async def test_ipv6_is_chosen_where_it_is_wanted_and_no_subnet_named(
    house: Installation, owner: Caller
) -> None:
    made = await house.control.networks.create(owner, "any", enable_ipv6=True)
    more = await house.control.networks.create(owner, "more", enable_ipv6=True)

    one, other = (IPv6Network(view.subnets[1]) for view in (made, more))
    assert one.prefixlen == other.prefixlen == 64
    assert one.is_private
    assert not one.overlaps(other)


async def test_ipv6_joins_a_network_and_new_replicas_have_it(house: Installation, owner: Caller) -> None:
    await put(house, owner, on("first", 1))
    place = NetworkAttachment(ipv6_address="fd00:2::5")
    wanted = app(web=msgspec.structs.replace(service(endpoint_mode="dnsrr"), networks={"n": place}))
    wanted = msgspec.structs.replace(wanted, networks={"n": AppNetwork(external="back")})
    accepted = await house.control.apps.apply(owner, wanted)
    refused = await house.flows.wait(RunId(str(accepted.run)), 30)

    await house.finish(
        await house.control.networks.add_subnet(owner, "back", AppSubnet(subnet="fd00:2::/64"))
    )
    await put(house, owner, wanted)

    assert "has no IPv6" in str(refused.error)
    shown = await house.control.networks.show(owner, "back")
    assert [port.address6 for port in shown.ports] == ["", "fd00:2::5"]
    with pytest.raises(Conflict, match="two IPv6 subnets"):
        await house.control.networks.add_subnet(owner, "back", AppSubnet(subnet="fd00:3::/64"))


async def test_ipv6_addresses_are_reserved_as_others_are(house: Installation, owner: Caller) -> None:
    await house.finish(
        await house.control.networks.add_subnet(owner, "back", AppSubnet(subnet="fd00:2::/64"))
    )
    kept = await house.control.reservations.add(owner, "back", "fd00:2::2-fd00:2::9", "printers")
    await put(house, owner, on("first", 1))

    shown = await house.control.networks.show(owner, "back")
    assert kept.addresses == "fd00:2::2-fd00:2::9"
    assert [port.address6 for port in shown.ports] == ["fd00:2::a"]
    assert [one.reserved for one in shown.subnets] == [0, 8]
    with pytest.raises(InvalidInput, match="two families"):
        await house.control.reservations.add(owner, "back", "10.1.0.2-fd00:2::20")
    await house.control.reservations.remove(owner, "back", "fd00:2::2-fd00:2::9")
    assert (await house.control.networks.show(owner, "back")).reservations == []


def test_a_host_is_told_both_families() -> None:
    row = join(network_row("back"), [("fd00:2::/64", None), ("10.2.0.0/24", None)], [])

    config = network_config(row)

    assert config.ipv6
    assert (str(config.ipv6.cidr), str(config.ipv6.gateway)) == ("fd00:2::/64", "fd00:2::1")
    assert [str(one.cidr) for one in config.subnets] == ["10.1.0.0/24", "10.2.0.0/24"]


def test_a_host_is_told_whom_its_groups_mean_in_both_families() -> None:
    net, tenant, host = NetworkId("n"), TenantId("t"), HostName("a")
    members = [
        MemberRow(
            tenant_id=tenant,
            network_id=net,
            address=number,
            host=host,
            security_groups=(group,),
            address6=six,
        )
        for number, group, six in ((7, "web", int(IPv6Address("fd00::7"))), (8, "web", None))
    ]
    web = GroupRow(
        id=GroupId("g"),
        tenant_id=tenant,
        name="web",
        description="",
        rules=(GroupRule(group="web"),),
        created=0.0,
        changed=0.0,
        changed_by="",
    )

    told = guard_maps(1, members, [web])[net].seen_from(host)

    assert [port.address6 for port in told.ports] == [IPv6Address("fd00::7"), None]
    assert told.groups[0].members6 == (IPv6Address("fd00::7"),)
    assert len(told.groups[0].members) == 2

"""Security groups from the use case to what hosts are told."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service

from skep.control.telling.guarding import Guarding
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.groups import GroupRule
from skep.model.host import NetworkGuards
from skep.model.ids import HostName
from skep.model.spec import AppSpec, Extensions, ServiceSpec
from skep.providers.simulated import SimulatedFabric

HTTP = GroupRule(protocol="tcp", ports="80")
FROM_WEB = GroupRule(protocol="tcp", ports="5432", group="web")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2) as made:
        yield made


def member(*groups: str, replicas: int = 1) -> ServiceSpec:
    return service(replicas=replicas, x_skep=Extensions(security_groups=groups))


async def shop(house: Installation, *, db: tuple[str, ...] = ("db",)) -> None:
    spec: AppSpec = app(web=member("web", replicas=2), db=member(*db))
    await house.finish(await house.control.apps.apply(house.admin, spec))


async def with_groups(house: Installation) -> None:
    await house.control.security_groups.put(house.admin, "web", rules=[HTTP])
    await house.control.security_groups.put(house.admin, "db", rules=[FROM_WEB])


def told(house: Installation) -> dict[HostName, NetworkGuards]:
    """What each host was told of the only network."""
    found = {}
    for name, host in house.hosts.items():
        assert isinstance(host.fabric, SimulatedFabric)
        for guards in host.fabric.known_guards().values():
            found[name] = guards
    return found


async def addresses(house: Installation, service: str) -> set[str]:
    return {
        one.address
        for one in await house.control.networks.ports(house.admin)
        if one.replica.startswith(f"shop/{service}-")
    }


async def test_hosts_are_told_what_guards_their_ports_before_these_are_plugged(house: Installation) -> None:
    await with_groups(house)

    await shop(house)

    guards = told(house)
    here = {str(port.address) for found in guards.values() for port in found.ports}
    assert here == await addresses(house, "web") | await addresses(house, "db")
    of_db = [found for found in guards.values() if any(rule.group for g in found.groups for rule in g.rules)]
    members = {str(one) for group in of_db[0].groups for one in group.members}
    assert members == await addresses(house, "web")


async def test_a_new_rule_is_in_force_when_the_call_returns(house: Installation) -> None:
    await with_groups(house)
    await shop(house)
    containers = {one.id: one.started for one in await house.control.replicas.list(house.admin)}

    added = await house.control.security_groups.add_rule(house.admin, "db", GroupRule(protocol="icmp"))

    known = {rule.protocol for found in told(house).values() for g in found.groups for rule in g.rules}
    assert known == {"tcp", "icmp"}
    assert {one.id: one.started for one in await house.control.replicas.list(house.admin)} == containers
    left = await house.control.security_groups.remove_rule(house.admin, "db", added.rules[-1].id)
    assert [rule.group for rule in left.rules] == ["web"]
    known = {rule.protocol for found in told(house).values() for g in found.groups for rule in g.rules}
    assert known == {"tcp"}


async def test_what_a_host_missed_or_lost_is_told_again(house: Installation) -> None:
    await with_groups(house)
    await shop(house)
    before = {name: guards.digest for name, guards in told(house).items()}
    name, guards = next(iter(told(house).items()))
    await house.hosts[name].fabric.set_guards(
        NetworkGuards(network=guards.network, generation=guards.generation + 10**9)
    )

    await Guarding(house.database, house.directory).reconcile()

    assert {name: guards.digest for name, guards in told(house).items()} == before


async def test_leaving_a_group_keeps_the_containers(house: Installation) -> None:
    await with_groups(house)
    await shop(house)
    before = {one.id: one.started for one in await house.control.replicas.list(house.admin)}

    await shop(house, db=())
    await Guarding(house.database, house.directory).reconcile()

    here = {str(port.address) for found in told(house).values() for port in found.ports}
    assert here == await addresses(house, "web")
    assert {one.id: one.started for one in await house.control.replicas.list(house.admin)} == before


async def test_an_unknown_group_is_named_with_its_place(house: Installation) -> None:
    with pytest.raises(NotFound, match=r"services.web.x-skep.security_groups: .* group 'web'"):
        await house.control.apps.plan(house.admin, app(web=member("web")))


async def test_a_group_that_is_used_stays(house: Installation) -> None:
    await with_groups(house)
    await shop(house, db=())
    groups = house.control.security_groups

    with pytest.raises(Conflict, match="1 services are in"):
        await groups.remove(house.admin, "web")
    await groups.put(house.admin, "other", rules=[GroupRule(group="db")])
    with pytest.raises(Conflict, match="A rule of security group 'other' names 'db'"):
        await groups.remove(house.admin, "db")
    await groups.remove(house.admin, "other")
    await groups.remove(house.admin, "db")
    with pytest.raises(NotFound):
        await groups.show(house.admin, "db")


async def test_rules_that_cannot_be_change_nothing(house: Installation) -> None:
    await with_groups(house)
    groups = house.control.security_groups

    with pytest.raises(InvalidInput):
        await groups.put(house.admin, "web", rules=[GroupRule(cidr="nowhere")])
    with pytest.raises(NotFound, match="'nobody'"):
        await groups.add_rule(house.admin, "web", GroupRule(group="nobody"))
    with pytest.raises(InvalidInput, match="at most 100"):
        await groups.put(house.admin, "web", rules=[GroupRule(cidr=f"10.0.{n}.0/24") for n in range(101)])

    assert [rule.ports for rule in (await groups.show(house.admin, "web")).rules] == ["80"]


async def test_a_trace_names_the_group_and_the_rule(house: Installation) -> None:
    await with_groups(house)
    await shop(house)
    trace = house.control.networks.trace

    lets = await trace(house.admin, "shop/web-0", "shop/db-0", port=5432)
    refuses = await trace(house.admin, "shop/web-0", "shop/db-0", port=80)
    strangers = await trace(house.admin, "shop/db-0", "shop/web-0", port=5432)

    address = IPv4Address(next(iter(await addresses(house, "db"))))
    assert any("group db admits tcp 5432" in hop.what and "from group web" in hop.what for hop in lets.hops)
    assert not refuses.reachable
    assert "no rule of group db admits tcp 80 from" in refuses.hops[-1].what
    assert f"no rule of group web admits tcp 5432 from {address}" in strangers.hops[-1].what

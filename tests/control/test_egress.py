"""Egress addresses from the use case to what hosts are told; which host leads a network outside."""

from collections import Counter
from functools import partial
from ipaddress import IPv4Address

import pytest
from tests.control.simulation import ALICE
from tests.control.test_peers import NET, UNDERLAY, A, B, C, Site, attachment, host, site

from skep.control.callers import Caller, Role
from skep.control.desired import DesiredState
from skep.control.networks.egress import MOST_OF_ALL, EgressAddresses
from skep.control.plans.specifications import Limits
from skep.control.telling.egressing import Egressing, holder
from skep.control.telling.peers import maps
from skep.model.errors import Conflict, Exhausted, Forbidden, InvalidInput, NotFound
from skep.model.host import Egress
from skep.model.ids import EgressId, HostName, NetworkId, TenantId, ZoneName
from skep.model.names import TenantName
from skep.model.topology import Liveness
from skep.store import hosts, networks, replicas
from skep.store.egress import EgressRow
from skep.store.hosts import HostRow
from skep.store.networks import NetworkRow

__all__ = ["site"]

FIXED = IPv4Address("203.0.113.10")
MEMBER = Caller(
    user=ALICE.user,
    user_name="alice",
    role=Role.MEMBER,
    tenant=TenantId("tenant"),
    tenant_name=TenantName("hive"),
)
ADMIN = Caller(
    user=ALICE.user,
    user_name="root",
    role=Role.ADMIN,
    tenant=TenantId("tenant"),
    tenant_name=TenantName("hive"),
)


def egressing(site: Site) -> Egressing:
    desired = DesiredState(site.database, Limits())
    return Egressing(site.database, site.directory, desired, site.peering)


@pytest.fixture
def addresses(site: Site) -> EgressAddresses:
    return EgressAddresses(site.database, egressing(site), lambda: 0.0)


def row(where: HostName | None = None, zone: str = "z") -> EgressRow:
    return EgressRow(
        id=EgressId("e"),
        zone=ZoneName(zone),
        address=int(FIXED),
        tenant_id=None,
        network_id=NET,
        host=where,
        created=0.0,
    )


def told(site: Site) -> dict[HostName, Egress | None]:
    """What each host was told of how the network leaves."""
    known = {name: fabric.known_peers() for name, fabric in site.fabrics.items()}
    return {name: found[NET].egress for name, found in known.items() if NET in found}


async def lose(site: Site, name: HostName) -> None:
    await site.database.write(partial(hosts.set_state, host=name, state=Liveness.LOST))


def chosen(now: HostName | None, *known: HostRow, load: Counter[HostName] | None = None) -> HostName | None:
    return holder(row(now), known, load or Counter())


def test_who_leads_a_network_outside_goes_on_while_it_answers() -> None:
    assert chosen(B, host(A), host(B)) == B
    assert chosen(B, host(A), host(B, Liveness.LOST)) == A


def test_a_new_leader_is_of_the_zone_and_leads_the_fewest_networks() -> None:
    busy = Counter({A: 2, B: 1})

    assert chosen(None, host(A), host(B), load=busy) == B
    assert holder(row(None, "elsewhere"), [host(A), host(B)], busy) is None
    assert chosen(None, host(A, Liveness.LOST)) is None


def test_a_host_without_an_underlay_leads_only_where_it_is_alone() -> None:
    alone = host(A, underlay="")

    assert chosen(None, alone) == A
    assert chosen(None, alone, host(B)) == B
    assert chosen(None, alone, host(B, Liveness.LOST)) is None


def test_every_host_of_the_network_knows_the_leader_and_the_leader_knows_itself() -> None:
    found = maps(1, [], [host(A), host(B)], egress={NET: row(A)})[NET]

    assert found.seen_from(A).egress == Egress(address=FIXED, here=True)
    assert found.seen_from(B).egress is None  # it has nothing of the network
    assert found.digest_from(A) == found.seen_from(A).digest


def test_digests_tell_leaders_apart() -> None:
    rows, known = [attachment(1, A), attachment(2, B)], [host(A), host(B)]
    ways: tuple[dict[NetworkId, EgressRow], ...] = ({}, {NET: row()}, {NET: row(A)}, {NET: row(B)})

    found = [maps(1, rows, known, egress=led)[NET] for led in ways]

    assert len({one.digest_from(A) for one in found}) == len(ways)
    assert all(one.digest_from(name) == one.seen_from(name).digest for one in found for name in (A, B))


async def test_a_network_leaves_by_its_address_from_every_host(
    site: Site, addresses: EgressAddresses
) -> None:
    await site.ensure(A, B)
    await addresses.add(ADMIN, "z", "203.0.113.10-203.0.113.12")

    made = await addresses.assign(MEMBER, "default")

    assert (made.address, made.network, made.host) == (str(FIXED), "default", A)
    assert told(site) == {
        A: Egress(address=FIXED, here=True),
        B: Egress(address=FIXED, via=IPv4Address(UNDERLAY[A])),
    }


async def test_a_host_without_replicas_of_the_network_gets_it_to_lead_it_outside(
    site: Site, addresses: EgressAddresses
) -> None:
    await site.database.write(partial(replicas.delete, ids=["replica5"]))
    await site.ensure(B, C)
    await addresses.add(ADMIN, "z", str(FIXED))

    await addresses.assign(MEMBER, "default")

    assert told(site)[A] == Egress(address=FIXED, here=True)
    assert site.fabrics[A].known_peers()[NET].hosts == (IPv4Address(UNDERLAY[B]), IPv4Address(UNDERLAY[C]))


async def test_another_host_leads_when_the_leader_is_lost_and_it_hears_when_it_is_back(
    site: Site, addresses: EgressAddresses
) -> None:
    await site.ensure(A, B, C)
    await addresses.add(ADMIN, "z", str(FIXED))
    await addresses.assign(MEMBER, "default")
    await lose(site, A)

    await egressing(site).reconcile()

    (view,) = await addresses.list(MEMBER)
    assert view.host == B
    assert told(site)[C] == Egress(address=FIXED, via=IPv4Address(UNDERLAY[B]))
    await site.database.write(partial(hosts.set_state, host=A, state=Liveness.READY))
    await site.peering.reconcile()
    assert told(site)[A] == Egress(address=FIXED, via=IPv4Address(UNDERLAY[B]))


async def test_without_a_host_that_could_lead_nothing_leaves(site: Site, addresses: EgressAddresses) -> None:
    await site.ensure(A, B, C)
    await addresses.add(ADMIN, "z", str(FIXED))
    await addresses.assign(MEMBER, "default")
    for name in (A, B, C):
        await lose(site, name)

    await egressing(site).reconcile()

    assert told(site)[B] == Egress(address=FIXED)


async def test_a_network_that_gives_its_address_up_leaves_by_its_hosts(
    site: Site, addresses: EgressAddresses
) -> None:
    await site.ensure(A, B, C)
    await addresses.add(ADMIN, "z", str(FIXED))
    await addresses.assign(MEMBER, "default")

    await addresses.unassign(MEMBER, "default")

    assert told(site) == {A: None, B: None, C: None}
    with pytest.raises(NotFound):
        await addresses.unassign(MEMBER, "default")


async def test_an_address_is_for_those_it_was_given_to(site: Site, addresses: EgressAddresses) -> None:
    stranger = Caller(
        user=ALICE.user,
        user_name="mallory",
        role=Role.MEMBER,
        tenant=TenantId("other"),
        tenant_name=TenantName("other"),
    )
    await addresses.add(ADMIN, "z", str(FIXED), "hive")

    with pytest.raises(Forbidden):
        await addresses.add(MEMBER, "z", "203.0.113.77")

    assert await addresses.list(stranger) == []
    assert [one.address for one in await addresses.list(MEMBER)] == [str(FIXED)]


async def test_what_is_in_use_is_nobody_elses(site: Site, addresses: EgressAddresses) -> None:
    await _more_networks(site, 1)
    await addresses.add(ADMIN, "z", str(FIXED))
    await addresses.assign(MEMBER, "default", str(FIXED))

    with pytest.raises(Conflict, match="Another network leaves"):
        await addresses.assign(MEMBER, "more-0", str(FIXED))
    with pytest.raises(Exhausted, match="No egress address is free"):
        await addresses.assign(MEMBER, "more-0")
    with pytest.raises(Conflict, match="A network leaves"):
        await addresses.remove(ADMIN, str(FIXED))
    with pytest.raises(Conflict, match="there already"):
        await addresses.add(ADMIN, "z", str(FIXED))


async def test_a_tenant_has_a_few_of_those_that_are_for_anybody(
    site: Site, addresses: EgressAddresses
) -> None:
    await _more_networks(site, MOST_OF_ALL + 1)
    await addresses.add(ADMIN, "z", "203.0.113.32/28")
    for number in range(MOST_OF_ALL):
        await addresses.assign(MEMBER, f"more-{number}")

    with pytest.raises(Exhausted, match="at most 4"):
        await addresses.assign(MEMBER, f"more-{MOST_OF_ALL}")


@pytest.mark.parametrize("wrong", ["224.0.0.1", "127.0.0.1", "203.0.0.0/16", "here"])
async def test_what_no_host_can_have_is_refused(addresses: EgressAddresses, wrong: str) -> None:
    with pytest.raises(InvalidInput):
        await addresses.add(ADMIN, "z", wrong)


async def test_a_zone_and_its_hosts_must_be_there(addresses: EgressAddresses) -> None:
    with pytest.raises(NotFound, match="no zone"):
        await addresses.add(ADMIN, "nowhere", str(FIXED))
    with pytest.raises(Conflict, match="address of a host"):
        await addresses.add(ADMIN, "z", UNDERLAY[A])


async def _more_networks(site: Site, count: int) -> None:
    new = [
        NetworkRow(
            id=NetworkId(f"net-{number}"),
            tenant_id=TenantId("tenant"),
            app_id=None,
            name=f"more-{number}",
            subnet=f"10.9.{number}.0/24",
            gateway=f"10.9.{number}.1",
            number=100 + number,
            cursor=0,
            internal=False,
            created=0.0,
        )
        for number in range(count)
    ]
    await site.database.write(partial(networks.insert, new=new))


def test_a_host_that_is_alone_is_told_that_it_leads() -> None:
    alone = host(A, underlay="")

    seen = maps(1, [attachment(1, A)], [alone], egress={NET: row(A)})[NET].seen_from(A)

    assert (seen.hosts, seen.ports, seen.egress) == ((), (), Egress(address=FIXED, here=True))

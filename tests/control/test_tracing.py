"""Why one replica can or cannot reach another."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import installation
from tests.control.simulation import app, service
from tests.control.test_peers import NET, A, B, attachment, host

from skep.control.callers import Role
from skep.control.networks import tracing
from skep.control.telling.peers import maps
from skep.model.errors import NotFound
from skep.model.groups import GroupRule
from skep.model.host import ContainerState, PeersInForce
from skep.model.ids import EgressId, HostName, NetworkId, TenantId, ZoneName
from skep.model.topology import Liveness
from skep.model.views.networks import TraceView
from skep.store.egress import EgressRow
from skep.store.hosts import HostRow
from skep.store.networks import AttachmentRow, NetworkRow

OTHER = NetworkId("other")
HERE, THERE = attachment(1, A), attachment(2, B)


def row(network: NetworkId, name: str) -> NetworkRow:
    return NetworkRow(
        id=network,
        tenant_id=TenantId("t"),
        app_id=None,
        name=name,
        subnet="10.0.0.0/24",
        gateway="10.0.0.1",
        number=7,
        cursor=0,
        internal=False,
        created=0.0,
    )


def traced(
    rows: list[AttachmentRow],
    places: Mapping[HostName, HostRow] | None = None,
    told: tracing.Told | None = None,
) -> TraceView:
    """From the first row's replica to the second's; every host knows what it should unless `told` differs."""
    hosts = places or {A: host(A), B: host(B)}
    made = maps(1, rows, hosts.values())
    knows: dict[HostName, dict[NetworkId, PeersInForce] | None] = {
        name: {
            network: PeersInForce(generation=1, digest=found.digest_from(name))
            for network, found in made.items()
        }
        for name in hosts
    }
    ends = [tracing.end(rows, hosts, one.replica) for one in rows[:2]]
    return tracing.trace(
        ends[0], ends[1], {NET: row(NET, "default"), OTHER: row(OTHER, "back")}, made, told or knows
    )


def stopped_at(found: TraceView) -> tuple[str, str]:
    assert not found.reachable
    assert all(hop.passes for hop in found.hops[:-1])
    return found.hops[-1].at, found.hops[-1].what


def test_two_replicas_on_one_host_meet_on_its_bridge() -> None:
    found = traced([HERE, attachment(2, A)])

    assert found.reachable
    assert [hop.at for hop in found.hops] == [A, A, A, A]
    assert "as 10.0.0.1, 02:00:00:00:00:01" in found.hops[1].what


def test_two_replicas_on_two_hosts_meet_over_the_overlay() -> None:
    found = traced([HERE, THERE])

    assert found.reachable
    assert [hop.at for hop in found.hops] == [A, A, A, "overlay", B, B]
    assert "VXLAN number 7, from a to b" in found.hops[3].what


def test_replicas_without_a_common_network_are_apart() -> None:
    at, what = stopped_at(traced([HERE, msgspec.structs.replace(THERE, network_id=OTHER)]))

    assert at == "networks"
    assert what == "shop/web-1 is on default, shop/web-2 on back: they share none"


@pytest.mark.parametrize("state", [None, ContainerState.EXITED])
def test_what_does_not_run_is_not_reached(state: ContainerState | None) -> None:
    at, what = stopped_at(traced([HERE, attachment(2, B, state)]))

    assert (at, what) == (B, "shop/web-2 does not run; see 'skep ps'")


def test_a_host_that_is_lost_stops_the_trace() -> None:
    at, what = stopped_at(traced([HERE, THERE], {A: host(A), B: host(B, Liveness.LOST)}))

    assert (at, what) == (B, "b does not answer: what it runs is unknown")


def test_a_host_without_an_address_for_others_stops_the_trace() -> None:
    at, what = stopped_at(traced([HERE, THERE], {A: host(A), B: host(B, underlay="")}))

    assert (at, what) == (B, "b has no address on the network between hosts")


def test_a_host_that_was_not_told_stops_the_trace() -> None:
    at, what = stopped_at(traced([HERE, THERE], told={A: {}, B: {}}))

    assert (at, what) == (A, "not yet told the newest of 'default'; within seconds it is")


def test_a_host_that_does_not_say_what_it_knows_stops_the_trace() -> None:
    at, what = stopped_at(traced([HERE, THERE], told={A: None, B: {}}))

    assert (at, what) == (A, "a did not say what it knows")


def test_who_is_on_no_network_is_not_found() -> None:
    with pytest.raises(NotFound, match="name it as 'skep ps' does"):
        tracing.end([HERE], {A: host(A)}, "shop/nobody-0")


async def test_a_tenant_sees_and_traces_its_own_replicas_only(tmp_path: Path) -> None:
    async with installation(tmp_path) as cloud:
        await cloud.control.tenants.create(cloud.admin, "thief")
        thief = await cloud.person("eve", Role.MEMBER, "thief")
        await cloud.finish(await cloud.control.apps.apply(cloud.admin, app(web=service(replicas=2))))
        networks = cloud.control.networks

        seen = await networks.map(cloud.admin, "default")
        found = await networks.trace(cloud.admin, "shop/web-0", "shop/web-1")

        assert [(one.replica, one.host_state, one.up) for one in seen] == [
            ("shop/web-0", "ready", True),
            ("shop/web-1", "ready", True),
            ("shop/web", "", True),
        ]
        assert found.reachable
        assert await networks.map(thief) == []
        with pytest.raises(NotFound):
            await networks.trace(thief, "shop/web-0", "shop/web-1")
        with pytest.raises(NotFound, match="no network 'nowhere'"):
            await networks.map(cloud.admin, "nowhere")


FIXED = "203.0.113.10"


def led(by: HostName | None) -> dict[NetworkId, EgressRow]:
    made = EgressRow(
        id=EgressId("e"),
        zone=ZoneName("z"),
        address=int(IPv4Address(FIXED)),
        tenant_id=None,
        network_id=NET,
        host=by,
        created=0.0,
    )
    return {NET: made}


def left(ways: dict[NetworkId, EgressRow], *ignorant: HostName, internal: bool = False) -> TraceView:
    """From the first host's replica to an address outside; who is not ignorant knows what it should."""
    places = {A: host(A), B: host(B)}
    made = maps(1, [HERE, THERE], places.values(), egress=ways)
    told = {
        name: {}
        if name in ignorant
        else {NET: PeersInForce(generation=1, digest=made[NET].digest_from(name))}
        for name in places
    }
    network = msgspec.structs.replace(row(NET, "default"), internal=internal)
    source = tracing.end([HERE], places, HERE.replica)
    return tracing.leaving(source, IPv4Address("192.0.2.9"), {NET: network}, made, places, ways, told)


def test_a_replica_leaves_by_its_host_or_by_the_one_that_has_its_networks_egress_address() -> None:
    by_own, here, there = left({}), left(led(A)), left(led(B))

    assert all(found.reachable for found in (by_own, here, there))
    assert by_own.hops[-1].what == "leaves to 192.0.2.9 by a, under its own address"
    assert (here.hops[-1].at, here.hops[-1].what) == (A, f"leaves to 192.0.2.9 as {FIXED}")
    assert [hop.at for hop in there.hops] == [A, A, A, "overlay", B, B]


def test_who_cannot_leave_is_told_why() -> None:
    assert stopped_at(left({}, internal=True))[1] == "'default' is internal: nothing leaves it"
    assert "no host of zone z can lead it outside" in stopped_at(left(led(None)))[1]
    assert stopped_at(left(led(B), B))[0] == B


def test_both_addresses_are_named_and_where_groups_decide_otherwise_over_ipv6() -> None:
    rows = [
        msgspec.structs.replace(one, address6=int(IPv6Address(f"fd00:1::{number}")))
        for number, one in ((1, HERE), (2, THERE))
    ]
    places = {A: host(A), B: host(B)}
    made = maps(1, rows, places.values())
    ends = [tracing.end(rows, places, one.replica) for one in rows]
    told = {name: {NET: PeersInForce(generation=1, digest=made[NET].digest_from(name))} for name in places}
    asked = tracing.Asked(
        protocol="tcp",
        port=80,
        groups={"web": (GroupRule(protocol="tcp", ports="80", cidr="10.0.0.0/24"),)},
        members={(NET, THERE.address): ("web",)},
    )

    found = tracing.trace(ends[0], ends[1], {NET: row(NET, "default")}, made, told, asked)

    said = [hop.what for hop in found.hops]
    assert found.reachable
    assert any("as 10.0.0.1, fd00:1::1, 02:00" in what for what in said)
    assert any("10.0.0.2 and fd00:1::2 are on b" in what for what in said)
    assert "over IPv6 it refuses fd00:1::1, other than over IPv4" in said

"""Who is told what about the hosts of a network."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.providers.network.conftest import network
from tests.schema import put_schema

from skep.control.host_directory import HostDirectory
from skep.control.setup import UNBOUNDED
from skep.control.telling.peering import Peering
from skep.control.telling.peers import NetworkMap, maps
from skep.flow import Database
from skep.model.errors import Unavailable
from skep.model.host import ContainerState, ContainerStatus, NetworkPeers, PeersInForce, RemotePort
from skep.model.ids import (
    AppId,
    ContainerId,
    HostName,
    NetworkId,
    PortId,
    RegionName,
    ReplicaId,
    ServiceId,
    TenantId,
    ZoneName,
)
from skep.model.names import AppName, TenantName
from skep.model.topology import Liveness, PoolName
from skep.providers.simulated import SimulatedFabric, SimulatedHost
from skep.store import apps, hosts, networks, replicas, tenants
from skep.store.apps import AppRow
from skep.store.hosts import HostRow, ZoneRow
from skep.store.networks import AttachmentRow, NetworkRow, PortRow
from skep.store.replicas import ReplicaRow, ServiceRow
from skep.store.tenants import TenantRow

NET = NetworkId("net")
A, B, C = HostName("a"), HostName("b"), HostName("c")
UNDERLAY = {A: "192.0.2.1", B: "192.0.2.2", C: "192.0.2.3"}


def host(name: HostName, state: Liveness = Liveness.READY, underlay: str | None = None) -> HostRow:
    address = UNDERLAY[name] if underlay is None else underlay
    return HostRow(name=name, zone=ZoneName("z"), pool=PoolName("z"), state=state, underlay=address)


def attachment(
    number: int, where: HostName, state: ContainerState | None = ContainerState.RUNNING
) -> AttachmentRow:
    replica = ReplicaId(f"replica-{number}")
    status = ContainerStatus(id=ContainerId("c"), replica=replica, state=state) if state else None
    return AttachmentRow(
        id=PortId(f"port-{number}"),
        tenant_id=TenantId("t"),
        network_id=NET,
        replica_id=replica,
        address=int(IPv4Address("10.0.0.0")) + number,
        mac=f"02:00:00:00:00:{number:02x}",
        names=(f"web-{number}", "web"),
        host=where,
        app="shop",
        service="web",
        ordinal=number,
        status=status,
    )


def mapped(attachments: Iterable[AttachmentRow], rows: Iterable[HostRow]) -> NetworkMap:
    return maps(1, attachments, rows)[NET]


def numbers(peers: NetworkPeers) -> list[str]:
    return [port.id.removeprefix("port-") for port in peers.ports]


def test_every_host_hears_of_what_is_on_the_others() -> None:
    made = mapped([attachment(1, A), attachment(2, B), attachment(3, B)], [host(A), host(B), host(C)])

    assert numbers(made.seen_from(A)) == ["2", "3"]
    assert numbers(made.seen_from(B)) == ["1"]
    assert made.seen_from(A).hosts == (IPv4Address(UNDERLAY[B]),)
    assert made.seen_from(A).ports[0].underlay == IPv4Address(UNDERLAY[B])
    assert made.seen_from(C) == NetworkPeers(network=NET, generation=1)


def test_a_host_that_is_alone_hears_nothing() -> None:
    made = mapped([attachment(1, A), attachment(2, A)], [host(A), host(B)])

    assert made.seen_from(A) == NetworkPeers(network=NET, generation=1)


def test_names_lead_to_what_runs_on_hosts_that_answer() -> None:
    found = [
        attachment(1, B),
        attachment(2, B, ContainerState.EXITED),
        attachment(3, B, None),
        attachment(4, C),
        attachment(5, A),
    ]

    seen = mapped(found, [host(A), host(B), host(C, Liveness.LOST)]).seen_from(A)

    assert {port.id: port.up for port in seen.ports} == {
        "port-1": True,
        "port-2": False,
        "port-3": False,
        "port-4": False,
    }


def test_who_is_gone_or_has_no_underlay_is_no_peer() -> None:
    rows = [host(A), host(B, Liveness.GONE), host(C, underlay="")]

    seen = mapped([attachment(1, A), attachment(2, B), attachment(3, C)], rows).seen_from(A)

    assert (seen.hosts, seen.ports) == ((), ())


@given(places=st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=12))
def test_the_digest_of_a_view_needs_no_view(places: list[HostName]) -> None:
    found = [attachment(number, place) for number, place in enumerate(places)]

    made = mapped(found, [host(A), host(B), host(C)])

    for name in (A, B, C):
        assert made.digest_from(name) == made.seen_from(name).digest


def test_digests_differ_where_peers_do() -> None:
    found = [attachment(1, A), attachment(2, B)]
    rows = [host(A), host(B), host(C)]
    base = mapped(found, rows).seen_from(A).digest

    other_host = mapped([attachment(1, A), attachment(2, C)], rows).seen_from(A).digest
    other_state = mapped([attachment(1, A), attachment(2, B, None)], rows).seen_from(A).digest

    assert len({base, other_host, other_state}) == 3


class Away(SimulatedFabric):
    """The fabric of a host that does not answer."""

    async def peers(self) -> dict[NetworkId, PeersInForce]:
        raise Unavailable

    async def set_peers(self, peers: NetworkPeers) -> None:
        raise Unavailable


class Site:
    """Three simulated hosts with a replica each on one network, as rows and on the hosts."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.directory = HostDirectory()
        self.fabrics: dict[HostName, SimulatedFabric] = {}
        self.peering = Peering(database, self.directory)
        for name in (A, B, C):
            made = SimulatedHost.make()
            self.fabrics[name] = made.fabric
            self.directory.add(name, made)

    async def ensure(self, *names: HostName) -> None:
        for name in names:
            await self.fabrics[name].ensure_network(
                msgspec.structs.replace(network(subnet="10.0.0.0/24"), id=NET)
            )

    async def generations(self) -> dict[HostName, int]:
        every = {name: await fabric.peers() for name, fabric in self.fabrics.items()}
        return {name: found[NET].generation for name, found in every.items() if NET in found}

    async def views(self) -> dict[HostName, set[str]]:
        """What names resolve to on each host, by the peers it knows."""
        return {
            name: {str(address) for address in fabric.resolve(NET, "web")}
            for name, fabric in self.fabrics.items()
        }

    async def move(self, number: int, to: HostName) -> None:
        async def change(connection: AsyncConnection) -> None:
            await replicas.delete(connection, [f"replica{number}"])
            await add_replica(connection, number, to)

        await self.database.write(change)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    database = await Database.open(await put_schema(tmp_path / "skep.db"), durable=False)
    try:
        await database.write(fill)
        yield Site(database)
    finally:
        await database.close()


async def fill(connection: AsyncConnection) -> None:
    await hosts.ensure_zone(connection, ZoneRow(name=ZoneName("z"), region=RegionName("r")))
    tenant = TenantId("tenant")
    await tenants.insert(
        connection, TenantRow(id=tenant, name=TenantName("hive"), quota=UNBOUNDED, created=0.0)
    )
    app = AppRow(id=AppId("app"), tenant_id=tenant, name=AppName("shop"), created=0.0, updated=0.0)
    await apps.insert(connection, app)
    service = ServiceRow(id=ServiceId("web"), tenant_id=tenant, app_id=app.id, name="web")
    await replicas.insert_services(connection, [service])
    row = NetworkRow(
        id=NET,
        tenant_id=tenant,
        app_id=None,
        name="default",
        subnet="10.0.0.0/24",
        gateway="10.0.0.1",
        number=1,
        cursor=0,
        internal=False,
        created=0.0,
    )
    await networks.insert(connection, [row])
    for number, name in enumerate((A, B, C), 5):
        await hosts.save(connection, host(name))
        await add_replica(connection, number, name)


async def add_replica(connection: AsyncConnection, number: int, where: HostName) -> None:
    replica, container = ReplicaId(f"replica{number}"), ContainerId(f"container{number}")
    row = ReplicaRow(
        id=replica,
        tenant_id=TenantId("tenant"),
        app_id=AppId("app"),
        service_id=ServiceId("web"),
        service="web",
        ordinal=number,
        host=where,
        container_id=container,
        desired="running",
        status=ContainerStatus(id=container, replica=replica, state=ContainerState.RUNNING),
        created=0.0,
    )
    await replicas.insert(connection, [row])
    port = PortRow(
        id=PortId(f"port{number}"),
        tenant_id=TenantId("tenant"),
        network_id=NET,
        replica_id=replica,
        address=int(IPv4Address("10.0.0.0")) + number,
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        names=("web",),
        position=0,
    )
    await networks.insert_ports(connection, [port])


async def test_an_announcement_reaches_every_host_that_has_the_network(site: Site) -> None:
    await site.ensure(A, B)

    await site.peering.announce([NET])

    assert await site.views() == {A: {"10.0.0.6", "10.0.0.7"}, B: {"10.0.0.5", "10.0.0.7"}, C: set()}


async def test_nothing_is_told_twice_in_a_row(site: Site) -> None:
    await site.ensure(A, B, C)
    await site.peering.announce([NET])
    told = await site.generations()

    await site.peering.announce([NET])
    await site.peering.reconcile()
    await Peering(site.database, site.directory).reconcile()

    assert await site.generations() == told
    assert len(told) == 3


async def test_a_replica_that_moved_is_announced_to_those_it_left_and_those_it_joined(site: Site) -> None:
    await site.ensure(A, B, C)
    await site.peering.announce([NET])

    await site.move(5, to=C)
    await site.peering.announce([NET])
    await site.peering.reconcile()

    # Nobody is on the first host any more, so it is none of the network's.
    assert await site.views() == {A: set(), B: {"10.0.0.5", "10.0.0.7"}, C: {"10.0.0.6"}}


async def test_names_follow_a_replica_that_ended_without_the_reconciler(site: Site) -> None:
    await site.ensure(A, B, C)
    await site.peering.announce([NET])
    ended = ContainerStatus(
        id=ContainerId("container5"), replica=ReplicaId("replica5"), state=ContainerState.EXITED
    )
    await site.database.write(partial(replicas.set_status, status=ended))

    site.peering.replica_changed(ended.replica)
    site.peering.replica_changed(ended.replica)

    async with asyncio.timeout(5):
        while (await site.views())[B] != {"10.0.0.7"}:
            await asyncio.sleep(0.01)
    await site.peering.close()


async def test_the_reconciler_tells_a_host_that_forgot(site: Site) -> None:
    await site.ensure(A, B, C)
    await site.peering.announce([NET])
    await site.fabrics[B].delete_network(NET)
    await site.ensure(B)

    await site.peering.reconcile()

    assert (await site.views())[B] == {"10.0.0.5", "10.0.0.7"}


async def test_a_clock_that_went_back_keeps_nobody_ignorant(site: Site) -> None:
    await site.ensure(A, B, C)
    await site.fabrics[A].set_peers(NetworkPeers(network=NET, generation=2**60))
    await site.peering.announce([NET])
    refused = (await site.views())[A]

    await site.peering.reconcile()

    assert refused == set()
    assert (await site.views())[A] == {"10.0.0.6", "10.0.0.7"}
    assert (await site.generations())[A] == 2**60 + 1


async def test_a_host_that_does_not_answer_keeps_no_other_waiting(site: Site) -> None:
    away = SimulatedHost.make()
    object.__setattr__(away, "fabric", Away())
    site.directory.add(A, away)
    await site.ensure(B, C)

    await site.peering.announce([NET])
    await site.peering.reconcile()

    assert (await site.views())[B] == {"10.0.0.5", "10.0.0.7"}
    assert (await site.views())[C] == {"10.0.0.5", "10.0.0.6"}


def test_a_mark_tells_ports_apart() -> None:
    port = RemotePort(
        id=PortId("p"),
        replica=ReplicaId("r"),
        address=IPv4Address("10.0.0.5"),
        mac="02:00:00:00:00:05",
        underlay=IPv4Address(UNDERLAY[A]),
    )

    assert port.mark != msgspec.structs.replace(port, up=True).mark


def test_hosts_hear_of_both_addresses_and_as_before_of_one() -> None:
    six = msgspec.structs.replace(attachment(2, B), address6=int(IPv6Address("fd00:1::2")))
    made = mapped([attachment(1, A), six, attachment(3, B)], [host(A), host(B)])

    two, three = made.seen_from(A).ports

    assert (two.address6, three.address6) == (IPv6Address("fd00:1::2"), None)
    assert b"address6" not in msgspec.json.encode(three, enc_hook=str)
    assert made.seen_from(A).digest == made.digest_from(A)
    plain = mapped([attachment(1, A), attachment(2, B), attachment(3, B)], [host(A), host(B)])
    assert made.digest_from(A) != plain.digest_from(A)

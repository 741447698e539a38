"""Apps that move as a whole, between two zones of simulated hosts: there, back, confirmed."""

import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.control.installation import Installation, installation
from tests.control.samples import stand_on_cluster
from tests.control.simulation import DATA, app, service

from skep.control.callers import Role
from skep.control.desired import DesiredState
from skep.control.endpoints.edges import Edges
from skep.control.plans.specifications import Limits
from skep.control.telling.peering import Peering
from skep.flow import RunId, RunState
from skep.model.errors import Conflict, Exhausted, Forbidden, InvalidInput, NotFound
from skep.model.host import ContainerState
from skep.model.ids import Bytes, DiskId, HostName
from skep.model.spec import AppExtensions, AppSpec, Dependency, EndpointSpec, Extensions, Mount, PublishedPort
from skep.model.views.base import Accepted
from skep.model.views.disks import DiskView
from skep.model.views.moves import MoveOrder
from skep.store import networks, replicas, tables, tenants
from skep.streams.sealing import sealed

HERE, THERE = HostName("host-1"), HostName("host-2")
OVER = MoveOrder(to_zone="zone-2")
KEEP, DROP = MoveOrder(back=True, data="keep"), MoveOrder(back=True, data="drop")
PORT = (PublishedPort(target=80, published=8080),)
AT_HOME = Extensions(zones=("zone",))


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2, zones=2) as made:
        yield made


def shop(**changes: Any) -> AppSpec:
    """A web server in front of a database, in the zone `zone`."""
    after = {"db": Dependency(condition="service_healthy")}
    spec = app(web=service(ports=PORT, depends_on=after, replicas=2), db=service(mounts=(DATA,)), **changes)
    return in_zone(spec)


def in_zone(spec: AppSpec) -> AppSpec:
    return msgspec.structs.replace(spec, x_skep=AppExtensions(zones=("zone",)))


async def released(cloud: Installation, spec: AppSpec | None = None) -> None:
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, spec or shop()))


async def move(cloud: Installation, order: MoveOrder = OVER) -> Accepted:
    return await cloud.control.moving.start(cloud.admin, "shop", order)


async def hosts_of(cloud: Installation) -> dict[str, str]:
    return {one.name: one.host for one in await cloud.control.replicas.list(cloud.admin, "shop")}


async def disk_of(cloud: Installation, side: str = "") -> DiskView:
    (found,) = [one for one in await cloud.control.disks.list(cloud.admin) if one.side == side]
    return found


async def write(cloud: Installation, content: bytes, disk: DiskView | None = None) -> None:
    """As the app would, to the disk that it has."""
    disk = disk or await disk_of(cloud)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("./log")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))

    async def once() -> AsyncIterator[bytes]:
        yield packed.getvalue()

    await cloud.hosts[HostName(disk.host)].disks.receive(DiskId(disk.id), sealed(once()))


async def read(cloud: Installation, side: str = "") -> bytes:
    disk = await disk_of(cloud, side)
    sent = b"".join([part async for part in cloud.hosts[HostName(disk.host)].disks.export(DiskId(disk.id))])
    with tarfile.open(fileobj=io.BytesIO(sent), mode="r:") as tar:
        file = tar.extractfile("./log")
        assert file is not None
        return file.read()


async def running(cloud: Installation, host: HostName) -> int:
    return sum(one.state is ContainerState.RUNNING for one in await cloud.hosts[host].engine.list())


async def test_an_app_moves_with_what_its_disks_hold_and_leaves_them_until_that_is_confirmed(
    cloud: Installation,
) -> None:
    await released(cloud)
    await write(cloud, b"orders")

    await cloud.finish(await move(cloud))

    assert set((await hosts_of(cloud)).values()) == {THERE}
    assert await running(cloud, HERE) == 0
    assert await running(cloud, THERE) == 3
    assert await read(cloud) == b"orders"
    assert (await disk_of(cloud)).host == THERE
    assert (await disk_of(cloud, "left")).host == HERE
    (view,) = await cloud.control.apps.list(cloud.admin)
    assert view.left_in == ("zone",)
    assert (view.state, view.revision) == ("running", 2)
    rollout = await cloud.control.rollouts.show(cloud.admin, "shop")
    assert (rollout.revision, rollout.phase, rollout.note) == (2, "in force", "move to zone 'zone-2'")
    await cloud.finish(await cloud.control.moving.confirm(cloud.admin, "shop"))
    assert await cloud.hosts[HERE].disks.list() == {
        name: usage
        for name, usage in (await cloud.hosts[HERE].disks.list()).items()
        if usage.kind == "system"
    }
    (view,) = await cloud.control.apps.list(cloud.admin)
    assert view.left_in == ()
    with pytest.raises(Conflict, match="has left nothing anywhere"):
        await cloud.control.moving.confirm(cloud.admin, "shop")


async def test_what_is_written_during_the_first_copy_moves_too(cloud: Installation) -> None:
    await released(cloud)
    await write(cloud, b"before")
    there, here = cloud.hosts[THERE].disks, await disk_of(cloud)
    copies = _after_each(
        there, "receive", lambda number: write(cloud, b"during", here) if number == 1 else None
    )

    await cloud.finish(await move(cloud))

    assert await read(cloud) == b"during"
    assert copies == ["", copies[1], ""]  # the disk was written anew: nobody knows what has changed


async def test_if_nothing_was_written_meanwhile_only_that_is_copied(cloud: Installation) -> None:
    await released(cloud)
    await write(cloud, b"orders")
    copies = _after_each(cloud.hosts[THERE].disks, "receive", lambda number: None)

    await cloud.finish(await move(cloud))

    assert (len(copies), copies[0], len(copies[1])) == (2, "", 64)
    assert await read(cloud) == b"orders"


async def test_if_both_sides_do_not_look_the_same_all_of_it_is_copied(
    cloud: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await released(cloud)
    await write(cloud, b"orders")
    there = cloud.hosts[THERE].disks
    monkeypatch.setattr(there, "fingerprint", _another)
    copies = _after_each(there, "receive", lambda number: None)

    await cloud.finish(await move(cloud))

    assert (len(copies), copies[2]) == (3, "")
    assert await read(cloud) == b"orders"


async def _another(disk: DiskId) -> str:
    return "another"


def _after_each(pool: Any, method: str, then: Callable[[int], Awaitable[None] | None]) -> list[str]:
    """After each call `then` is called with its number; answers onto what they were, as they come."""
    real, calls = getattr(pool, method), list[str]()

    async def call(disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        calls.append(onto)
        number = len(calls)
        await real(disk, stream, onto)
        if (waiting := then(number)) is not None:
            await waiting

    setattr(pool, method, call)
    return calls


async def test_on_the_way_back_new_data_goes_along(cloud: Installation) -> None:
    await released(cloud)
    await write(cloud, b"before")
    await cloud.finish(await move(cloud))
    await write(cloud, b"after")

    await cloud.finish(await move(cloud, KEEP))

    assert set((await hosts_of(cloud)).values()) == {HERE}
    assert await read(cloud) == b"after"
    await cloud.finish(await cloud.control.moving.confirm(cloud.admin, "shop"))
    (left,) = await cloud.control.disks.list(cloud.admin)
    assert (left.name, left.host, left.side) == ("shop_data", HERE, "")


async def test_on_the_way_back_new_data_is_dropped_and_can_be_come_back_to(cloud: Installation) -> None:
    await released(cloud)
    await write(cloud, b"before")
    first = await disk_of(cloud)
    await cloud.finish(await move(cloud))
    await write(cloud, b"after")

    await cloud.finish(await move(cloud, DROP))

    assert await read(cloud) == b"before"
    assert (await disk_of(cloud)).id == first.id
    assert await read(cloud, "left") == b"after"
    await cloud.finish(await move(cloud, DROP))
    assert await read(cloud) == b"after"
    assert set((await hosts_of(cloud)).values()) == {THERE}


async def test_an_app_that_has_moved_is_changed_where_it_is(cloud: Installation) -> None:
    spec = app(web=service(depends_on={}, x_skep=Extensions()), db=service(mounts=(DATA,)))
    await released(cloud, in_zone(spec))
    await cloud.finish(await move(cloud))

    changed = app(web=service("sleep", "9", replicas=1), db=service("sleep", "9", mounts=(DATA,)))
    await released(cloud, changed)

    assert set((await hosts_of(cloud)).values()) == {THERE}


async def test_a_target_that_gets_full_is_left_and_the_app_is_as_it_was(tmp_path: Path) -> None:
    async with installation(tmp_path, hosts=2, zones=2, pools={THERE: Bytes(1024**2 + 1024)}) as cloud:
        first, second = (
            service(mounts=(DATA,)),
            service(mounts=(Mount(type="volume", source="more", target="/more"),)),
        )
        await released(cloud, in_zone(app(db=first, other=second)))
        for disk in await cloud.control.disks.list(cloud.admin):
            await write(cloud, bytes(600 * 1024), disk)
        held = {name: await host.disks.list() for name, host in cloud.hosts.items()}

        record = await cloud.flows.wait(RunId((await move(cloud)).run or ""), 30)

        assert record.state is RunState.FAILED
        assert "does not fit" in record.error
        assert set((await hosts_of(cloud)).values()) == {HERE}
        assert await running(cloud, HERE) == 2
        assert {name: await host.disks.list() for name, host in cloud.hosts.items()} == held


async def test_an_app_without_disks_serves_here_until_it_is_ready_there(cloud: Installation) -> None:
    await released(cloud, in_zone(app(web=service(replicas=2))))
    plan = await cloud.control.moving.plan(cloud.admin, "shop", OVER)

    await cloud.finish(await move(cloud))

    assert (plan.stop, plan.disks) == ("", ())
    assert set((await hosts_of(cloud)).values()) == {THERE}
    (view,) = await cloud.control.apps.list(cloud.admin)
    assert view.left_in == ()


async def test_a_preview_says_what_would_be_and_does_nothing(cloud: Installation) -> None:
    await released(cloud)
    await write(cloud, b"orders")

    plan = await cloud.control.moving.plan(cloud.admin, "shop", OVER)

    assert (plan.source, plan.target) == (("zone",), ("zone-2",))
    (disk,) = plan.disks
    assert (disk.name, disk.source, disk.target, disk.copied) == ("shop_data", HERE, THERE, True)
    assert disk.used is not None
    assert [one.service for one in plan.images] == ["web"] or [one.service for one in plan.images] == ["db"]
    assert len(plan.replicas) == 3
    assert "has changed on its disks" in plan.stop
    assert set((await hosts_of(cloud)).values()) == {HERE}


async def test_what_cannot_move_is_refused_before_anything_happens(cloud: Installation) -> None:
    await released(cloud)

    for order, error, words in (
        (MoveOrder(to_zone="zone"), Conflict, "in zone 'zone' already"),
        (MoveOrder(to_zone="mars"), NotFound, "no zone 'mars'"),
        (MoveOrder(), InvalidInput, "Say where to move"),
        (KEEP, Conflict, "has left nothing"),
        (MoveOrder(back=True), InvalidInput, "--keep-new-data"),
    ):
        with pytest.raises(error, match=words):
            await move(cloud, order)
    await cloud.finish(await cloud.control.apps.stop(cloud.admin, "shop", "web"))
    with pytest.raises(Conflict, match="web-0, web-1 of app 'shop' are stopped"):
        await move(cloud)


async def test_until_it_is_confirmed_a_move_stands_in_the_way_of_another_and_of_removal(
    cloud: Installation,
) -> None:
    await released(cloud)
    await cloud.finish(await move(cloud))

    with pytest.raises(Conflict, match="--confirm"):
        await move(cloud, MoveOrder(to_zone="zone"))
    with pytest.raises(Conflict, match="--confirm"):
        await cloud.control.apps.remove(cloud.admin, "shop")
    with pytest.raises(Conflict, match="its app moves"):
        await cloud.control.disks.remove(cloud.admin, (await disk_of(cloud, "left")).name)
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop", volumes=True))
    for host in cloud.hosts.values():
        assert [one for one in (await host.disks.list()).values() if one.kind == "data"] == []


async def test_snapshots_of_disks_that_were_left_bring_nothing_back(cloud: Installation) -> None:
    await released(cloud)
    changed = in_zone(app(db=service("sleep", "9", mounts=(DATA,))))
    await released(cloud, changed)
    await cloud.finish(await move(cloud))

    with pytest.raises(Conflict, match="no snapshots of the data that revision 1 left"):
        await cloud.control.releases.rollback(cloud.admin, "shop", 1, with_data=True)


async def test_a_second_side_counts_against_the_quota(cloud: Installation) -> None:
    await released(cloud)
    four = 4 * 1024**2  # three system disks and one of data
    async with cloud.database.read() as connection:
        row = await tenants.get(connection, cloud.admin.tenant)
    assert row is not None
    bounded = msgspec.structs.replace(row.quota, disk=Bytes(four))
    change = sa.update(tables.tenants).where(tables.tenants.c.id == row.id).values(quota=bounded)
    await cloud.database.write(lambda connection: connection.execute(change))

    with pytest.raises(Exhausted, match="quota of 4194304 disk"):
        await move(cloud)


async def test_who_only_looks_moves_nothing(cloud: Installation) -> None:
    await released(cloud)
    viewer = await cloud.person("eve", Role.VIEWER)

    with pytest.raises(Forbidden):
        await cloud.control.moving.start(viewer, "shop", OVER)
    with pytest.raises(Forbidden):
        await cloud.control.moving.confirm(viewer, "shop")
    assert (await cloud.control.moving.plan(viewer, "shop", OVER)).app == "shop"


async def test_while_two_sides_stand_side_by_side_each_is_led_to_its_own(cloud: Installation) -> None:
    endpoint = EndpointSpec(host="shop.example.com")
    spec = app(web=service(replicas=4, ports=PORT, x_skep=Extensions(endpoints=(endpoint,))))
    await released(cloud, spec)
    await stand_on_cluster(cloud.database, "zone-2", THERE)
    desired = DesiredState(cloud.database, Limits())
    edges = Edges(cloud.database, cloud.directory, desired, Peering(cloud.database, cloud.directory))

    await edges.reconcile()

    async with cloud.database.read() as connection:
        members = {one.id: one for one in await replicas.find(connection)}
        plugged = await networks.ports_of(connection)
    (web,) = {one.service_id for one in members.values()}
    for host, machine in cloud.hosts.items():
        own = {one.name for one in members.values() if one.host == host}
        addresses = {IPv4Address(one.address) for one in plugged if members[one.replica_id].host == host}
        (told,) = machine.edge.told.values()
        assert {server.replica for server in told.endpoints[0].servers} == own
        (published,) = (await desired.publications(web, host)).publications
        assert set(published.addresses) == addresses

"""Apps over several hosts: where replicas go, what goes with them, and emptying a host."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import DATA, app, service

from skep.control.desired import DesiredState
from skep.control.plans.specifications import Limits
from skep.control.reconcilers.emptying import Emptying
from skep.control.reconcilers.reconciler import Reconciler
from skep.flow import RunId, RunState, StepState
from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound, Unsupported
from skep.model.host import ContainerState, ContainerStatus
from skep.model.ids import HostName, ServiceId
from skep.model.spec import Extensions, Placement, PublishedPort, UpdateConfig
from skep.model.topology import Liveness
from skep.model.views.apps import ReplicaView
from skep.store import hosts, replicas

ONE, TWO, THREE = (HostName(f"host-{number}") for number in (1, 2, 3))
WEB = (PublishedPort(target=80, published=8080),)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=3, zones=3) as made:
        yield made


def reconciler(cloud: Installation) -> Reconciler:
    return Reconciler(
        database=cloud.database,
        flows=cloud.flows,
        hosts=cloud.directory,
        desired=DesiredState(cloud.database, Limits()),
        apps=cloud.control.apps,
        woken=asyncio.Event(),
        monotonic=cloud.clock,
    )


def emptying(cloud: Installation) -> Emptying:
    return Emptying(cloud.database, cloud.control.draining, cloud.clock)


async def released(cloud: Installation, **services: object) -> dict[str, ReplicaView]:
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, app(**services)))  # type: ignore[arg-type]
    return await shown(cloud)


async def shown(cloud: Installation) -> dict[str, ReplicaView]:
    return {view.name: view for view in await cloud.control.replicas.list(cloud.admin, "shop")}


async def ended(cloud: Installation, runs: tuple[str, ...]) -> list[RunState]:
    return [(await cloud.flows.wait(RunId(run), 30)).state for run in runs]


async def idle(cloud: Installation) -> None:
    for run in await cloud.flows.list(active=True):
        await cloud.flows.wait(run.id, 30)


async def mark_lost(cloud: Installation, host: HostName) -> None:
    async def lose(connection: object) -> None:
        await hosts.set_state(connection, host, Liveness.LOST)  # type: ignore[arg-type]

    await cloud.database.write(lose)


async def learn(cloud: Installation) -> None:
    """What the database has of hosts, as the directory learns it again and again."""
    async with cloud.database.read() as connection:
        cloud.directory.learn(await hosts.every(connection))


async def proving(cloud: Installation, run: RunId, replicas: int) -> None:
    """Until so many are watched whether they stay well."""
    async with asyncio.timeout(30):
        while True:
            steps = await cloud.flows.steps(run)
            found = [one for one in steps if one.use == "rollout.prove" and one.state is StepState.RUNNING]
            if len(found) == replicas:
                return
            await asyncio.sleep(0.02)


async def test_replicas_are_spread_over_the_zones_and_run_where_they_were_placed(cloud: Installation) -> None:
    views = await released(cloud, web=service(replicas=6))

    assert Counter(view.host for view in views.values()) == {ONE: 2, TWO: 2, THREE: 2}
    for name, machine in cloud.hosts.items():
        running = [status for status in await machine.engine.list() if status.state is ContainerState.RUNNING]
        here = {view.id for view in views.values() if view.host == name}
        assert {status.replica for status in running} == here
        assert await machine.fabric.sandboxes() == here


async def test_scaling_up_fills_what_is_emptiest_and_moves_nothing(cloud: Installation) -> None:
    before = await released(cloud, web=service(replicas=2))

    after = await released(cloud, web=service(replicas=3))

    assert {name: after[name].host for name in before} == {name: view.host for name, view in before.items()}
    assert {view.host for view in after.values()} == {ONE, TWO, THREE}


async def test_what_shares_a_volume_is_on_one_host_with_it(cloud: Installation) -> None:
    views = await released(
        cloud,
        web=service(replicas=2, mounts=(DATA,)),
        worker=service(mounts=(DATA,)),
        other=service(replicas=3),
    )
    (disk,) = await cloud.control.disks.list(cloud.admin)

    together = {view.host for name, view in views.items() if not name.startswith("other")}
    assert together == {disk.host}
    assert len({view.host for name, view in views.items() if name.startswith("other")}) == 3


async def test_stateful_replicas_are_spread_each_with_its_own_disk(cloud: Installation) -> None:
    views = await released(cloud, db=service(replicas=3, mounts=(DATA,), x_skep=Extensions(stateful=True)))
    disks = {disk.attached_to[0]: disk.host for disk in await cloud.control.disks.list(cloud.admin)}

    assert disks == {f"shop/{name}": view.host for name, view in views.items()}
    assert set(disks.values()) == {ONE, TWO, THREE}


async def test_a_volume_that_stayed_draws_its_replica_to_its_host(cloud: Installation) -> None:
    await cloud.control.hosts.label(cloud.admin, THREE, {"disk": "ssd"})
    ssd = Placement(constraints=("node.labels.disk == ssd",))
    await released(cloud, db=service(mounts=(DATA,), placement=ssd))
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))

    views = await released(cloud, db=service(mounts=(DATA,)))

    assert views["db-0"].host == THREE
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))
    await cloud.control.hosts.cordon(cloud.admin, THREE)
    with pytest.raises(Exhausted, match="host-3, where its disks are, but that is cordoned"):
        await cloud.control.apps.plan(cloud.admin, app(db=service(mounts=(DATA,))))


async def test_constraints_are_acted_on_and_what_cannot_be_placed_says_why(cloud: Installation) -> None:
    await cloud.control.hosts.label(cloud.admin, TWO, {"disk": "ssd"})
    await cloud.control.hosts.cordon(cloud.admin, ONE)
    ssd = Placement(constraints=("node.labels.disk == ssd",), max_per_host=1)

    views = await released(cloud, web=service(placement=ssd))

    assert views["web-0"].host == TWO
    with pytest.raises(Exhausted, match=r"1 is cordoned, 1 is with 1 of its replicas already, 1 is without"):
        await cloud.control.apps.plan(cloud.admin, app(web=service(replicas=2, placement=ssd)))
    nowhere = Placement(constraints=("node.role == manager",))
    beside = service(labels={"new": "1"}, update=UpdateConfig(order="start-first"), placement=nowhere)
    for web in (service(replicas=2, placement=nowhere), beside):
        with pytest.raises(Exhausted, match=r"^No host satisfies node.role == manager, which shop/web asks"):
            await cloud.control.apps.plan(cloud.admin, app(web=web))
    wrong = Placement(constraints=("here",))
    with pytest.raises(InvalidInput, match="no constraint"):
        await cloud.control.apps.plan(cloud.admin, app(web=service(placement=wrong)))


async def test_every_host_of_a_service_publishes_it_and_leads_to_its_own_replicas_first(
    cloud: Installation,
) -> None:
    views = await released(cloud, web=service(replicas=2, ports=WEB))

    for view in views.values():
        (wanted,) = (await cloud.hosts[HostName(view.host)].fabric.published()).values()
        (publication,) = wanted.publications
        assert publication.published == 8080
        assert [str(address) for address in publication.addresses] == list(view.addresses)
    (spare,) = set(cloud.hosts) - {HostName(view.host) for view in views.values()}
    assert await cloud.hosts[spare].fabric.published() == {}


async def test_a_host_that_a_service_left_publishes_it_no_more(cloud: Installation) -> None:
    await released(cloud, web=service(replicas=3, ports=WEB))
    await released(cloud, web=service(replicas=1, ports=WEB))

    await reconciler(cloud).reconcile()
    await idle(cloud)

    published = [len(await machine.fabric.published()) for machine in cloud.hosts.values()]
    assert sorted(published) == [0, 0, 1]


async def test_removing_an_app_and_its_network_leaves_nothing_on_any_host(cloud: Installation) -> None:
    await released(cloud, web=service(replicas=3, ports=WEB))

    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))
    await cloud.finish(await cloud.control.networks.remove(cloud.admin, "default"))

    for machine in cloud.hosts.values():
        fabric = machine.fabric
        assert not any([await fabric.networks(), await fabric.sandboxes(), await fabric.published()])
        assert not await machine.engine.list()
        assert not await machine.disks.list()


async def test_a_slow_host_keeps_the_others_from_nothing(
    cloud: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await released(cloud, web=service(replicas=3))
    for machine in cloud.hosts.values():
        for status in await machine.engine.list():
            await machine.engine.remove(status.id)
    never = asyncio.Event()

    async def hang() -> list[ContainerStatus]:
        await never.wait()
        return []

    monkeypatch.setattr(cloud.hosts[TWO].engine, "list", hang)
    monkeypatch.setattr("skep.control.reconcilers.reconciler.PATIENCE", 0.5)

    working = asyncio.create_task(reconciler(cloud).run())
    try:
        async with asyncio.timeout(20):
            while not (await cloud.hosts[ONE].engine.list() and await cloud.hosts[THREE].engine.list()):
                await asyncio.sleep(0.05)
    finally:
        working.cancel()
        await asyncio.wait([working])


async def test_draining_makes_again_elsewhere_what_has_no_data_and_keeps_its_identity(
    cloud: Installation,
) -> None:
    before = await released(cloud, web=service(replicas=3, ports=WEB), db=service(mounts=(DATA,), replicas=1))
    away = HostName(before["web-0"].host)

    drained = await cloud.control.hosts.drain(cloud.admin, away)

    assert await ended(cloud, drained.runs) == [RunState.SUCCEEDED]
    after = await shown(cloud)
    stays = [f"shop/{name}" for name, view in before.items() if view.host == away and name == "db-0"]
    assert [one.replica for one in drained.staying] == stays
    assert all(view.host != away for name, view in after.items() if name.startswith("web"))
    assert {name: (view.id, view.addresses, view.mac, view.state) for name, view in after.items()} == {
        name: (view.id, view.addresses, view.mac, view.state) for name, view in before.items()
    }
    await reconciler(cloud).reconcile()
    await idle(cloud)
    left = {status.replica for status in await cloud.hosts[away].engine.list()}
    assert left == {view.id for view in after.values() if view.host == away}
    assert await cloud.hosts[away].fabric.sandboxes() == left
    moved = await cloud.hosts[HostName(after["web-0"].host)].fabric.published()
    assert set(moved) == {ServiceId(await service_of(cloud, "web-0"))}


async def service_of(cloud: Installation, name: str) -> str:
    async with cloud.database.read() as connection:
        return next(row.service_id for row in await replicas.find(connection) if row.name == name)


async def test_replicas_with_data_stay_and_say_so(cloud: Installation) -> None:
    views = await released(
        cloud, db=service(mounts=(DATA,)), keeper=service(x_skep=Extensions(keep_system_disk=True))
    )

    answers = [await cloud.control.hosts.drain(cloud.admin, view.host) for view in views.values()]

    reasons = {one.replica: one.reason for answer in answers for one in answer.staying}
    assert reasons == {
        "shop/db-0": "its data disks are on this host",
        "shop/keeper-0": "it keeps its system disk",
    }
    assert all(not answer.runs for answer in answers)
    assert {view.host: view.state for view in (await shown(cloud)).values()} == {
        view.host: "running" for view in views.values()
    }


async def test_draining_with_nowhere_to_go_says_why_and_stops_nothing(cloud: Installation) -> None:
    await cloud.control.hosts.cordon(cloud.admin, TWO)
    await cloud.control.hosts.cordon(cloud.admin, THREE)
    await released(cloud, web=service())

    drained = await cloud.control.hosts.drain(cloud.admin, ONE)

    assert drained.runs == ()
    assert "2 are cordoned, 1 is draining" in drained.staying[0].reason
    assert (await shown(cloud))["web-0"].state == "running"


async def test_a_stopped_replica_goes_too_and_stays_stopped(cloud: Installation) -> None:
    before = await released(cloud, web=service())
    await cloud.finish(await cloud.control.apps.stop(cloud.admin, "shop"))

    drained = await cloud.control.hosts.drain(cloud.admin, before["web-0"].host)
    await ended(cloud, drained.runs)

    after = await shown(cloud)
    assert after["web-0"].host != before["web-0"].host
    assert after["web-0"].state == "stopped"
    await cloud.finish(await cloud.control.apps.start(cloud.admin, "shop"))
    assert (await shown(cloud))["web-0"].state == "running"


async def test_a_cordoned_host_takes_nothing_new_until_it_is_uncordoned(cloud: Installation) -> None:
    await cloud.control.hosts.cordon(cloud.admin, ONE)

    views = await released(cloud, web=service(replicas=4))

    assert {view.host for view in views.values()} == {TWO, THREE}
    await cloud.control.hosts.uncordon(cloud.admin, ONE)
    assert (await released(cloud, web=service(replicas=5)))["web-4"].host == ONE


async def test_a_host_is_removed_when_it_is_empty_or_lost_for_good(cloud: Installation) -> None:
    await released(cloud, web=service(replicas=2))
    used = [HostName(view.host) for view in (await shown(cloud)).values()]
    (spare,) = set(cloud.hosts) - set(used)

    await cloud.bus.declare(f"agent.{spare}")
    await cloud.control.hosts.remove(cloud.admin, spare)
    with pytest.raises(Conflict, match="skep host drain"):
        await cloud.control.hosts.remove(cloud.admin, used[0], lost=True)
    await mark_lost(cloud, used[0])
    with pytest.raises(Conflict, match="--lost"):
        await cloud.control.hosts.remove(cloud.admin, used[0])
    await cloud.control.hosts.remove(cloud.admin, used[0], lost=True)

    states = {host.name: host.state for host in await cloud.control.hosts.list(cloud.admin)}
    assert states == {used[0]: "gone", used[1]: "ready"}
    assert await cloud.bus.depths([f"agent.{spare}"]) == {}
    lost = [view.state for view in (await shown(cloud)).values() if view.host == used[0]]
    assert lost == ["unknown"]
    with pytest.raises(NotFound):
        await cloud.control.hosts.show(cloud.admin, spare)
    with pytest.raises(Conflict, match="must answer to be drained"):
        await cloud.control.hosts.drain(cloud.admin, used[0])


async def test_what_a_fenced_host_ran_is_made_again_elsewhere_and_keeps_its_identity(
    cloud: Installation,
) -> None:
    before = await released(cloud, web=service(replicas=3, ports=WEB))
    dead = HostName(before["web-0"].host)
    await mark_lost(cloud, dead)

    await cloud.control.hosts.remove(cloud.admin, dead, fenced=True)
    await idle(cloud)

    after = await shown(cloud)
    assert all(view.host != dead and view.state == "running" for view in after.values())
    assert {name: (view.id, view.addresses, view.mac) for name, view in after.items()} == {
        name: (view.id, view.addresses, view.mac) for name, view in before.items()
    }
    await emptying(cloud).reconcile()
    assert dead not in {host.name for host in await cloud.control.hosts.list(cloud.admin)}


async def test_a_release_that_loses_a_host_for_good_is_taken_back_as_far_as_there_is_something_left(
    cloud: Installation,
) -> None:
    before = await released(cloud, web=service(replicas=3))
    dead = HostName(before["web-1"].host)
    update = UpdateConfig(parallelism=0, monitor=600)
    accepted = await cloud.control.apps.apply(
        cloud.admin, app(web=service("sleep", "1000000", replicas=3, update=update))
    )
    run = RunId(accepted.run or "")
    await proving(cloud, run, 3)

    await mark_lost(cloud, dead)
    await cloud.control.hosts.remove(cloud.admin, dead, fenced=True)
    cloud.directory.remove(dead)
    await learn(cloud)
    await cloud.control.rollouts.abort(cloud.admin, "shop")
    ended = await cloud.flows.wait(run, 30)
    await emptying(cloud).reconcile()
    await idle(cloud)
    await reconciler(cloud).reconcile()

    after = await shown(cloud)
    assert ended.state is RunState.CANCELLED, ended
    assert all(view.host != dead and view.state == "running" for view in after.values())
    assert {view.id for view in after.values()} == {view.id for view in before.values()}


async def test_what_has_data_on_a_fenced_host_says_what_can_be_done_and_that_can_be_done(
    cloud: Installation,
) -> None:
    there = Placement(constraints=("node.hostname == host-3",))  # host-1 alone has the image
    dead = THREE
    await released(cloud, db=service(mounts=(DATA,), placement=there))
    await mark_lost(cloud, dead)
    await cloud.control.hosts.remove(cloud.admin, dead, lost=True)
    await cloud.control.hosts.remove(cloud.admin, dead, fenced=True)

    (stays,) = (await cloud.control.hosts.show(cloud.admin, dead)).staying
    del cloud.hosts[dead]
    cloud.directory.remove(dead)
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop", volumes=True))
    after = await released(cloud, db=service(mounts=(DATA,)))
    await emptying(cloud).reconcile()

    assert (stays.replica, stays.waits) == ("shop/db-0", False)
    assert "skep rm shop --volumes" in stays.reason
    assert after["db-0"].host != dead
    assert dead not in {host.name for host in await cloud.control.hosts.list(cloud.admin)}


async def test_a_disk_that_was_kept_on_a_fenced_host_can_be_removed(cloud: Installation) -> None:
    before = await released(cloud, db=service(mounts=(DATA,)))
    dead = HostName(before["db-0"].host)
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))
    await mark_lost(cloud, dead)
    await cloud.control.hosts.remove(cloud.admin, dead, fenced=True)

    accepted = await cloud.control.disks.remove(cloud.admin, "shop_data")

    assert (accepted.run, await cloud.control.disks.list(cloud.admin)) == (None, [])


async def test_nothing_is_taken_for_dead_that_is_not_fenced(cloud: Installation) -> None:
    before = await released(cloud, web=service(replicas=3))
    lost, answers = HostName(before["web-0"].host), before["web-1"].host
    await mark_lost(cloud, lost)

    await cloud.control.hosts.remove(cloud.admin, lost, lost=True)
    await emptying(cloud).reconcile()
    await idle(cloud)

    assert (await shown(cloud))["web-0"].host == lost
    with pytest.raises(Conflict, match="neither off nor cut"):
        await cloud.control.hosts.remove(cloud.admin, answers, fenced=True)


async def test_what_could_not_be_drained_yet_goes_when_it_can(cloud: Installation) -> None:
    for host in (TWO, THREE):
        await cloud.control.hosts.cordon(cloud.admin, host)
    await released(cloud, web=service())
    drained = await cloud.control.hosts.drain(cloud.admin, ONE)
    kept = emptying(cloud)
    await kept.reconcile()
    (waiting,) = (await cloud.control.hosts.show(cloud.admin, ONE)).staying

    await cloud.control.hosts.uncordon(cloud.admin, TWO)
    (leaves,) = (await cloud.control.hosts.show(cloud.admin, ONE)).staying
    await kept.reconcile()
    await idle(cloud)

    assert (drained.runs, waiting.waits, leaves.waits) == ((), True, True)
    assert leaves.reason == "it is about to move to host host-2"
    assert (await shown(cloud))["web-0"].host == TWO
    assert (await cloud.control.hosts.show(cloud.admin, ONE)).staying == ()


async def test_a_pool_of_one_tenant_is_for_it_alone(cloud: Installation) -> None:
    await cloud.control.tenants.create(cloud.admin, "acme")
    await cloud.control.pools.put(cloud.admin, "zone", tenant="acme", labels={"tier": "gold"})

    views = await released(cloud, web=service(replicas=4))

    assert {view.host for view in views.values()} == {TWO, THREE}
    pools = {pool.name: pool for pool in await cloud.control.pools.list(cloud.admin)}
    assert (pools["zone"].tenant, pools["zone"].labels) == ("acme", {"tier": "gold"})
    await cloud.control.pools.put(cloud.admin, "zone", tenant="")
    assert (await released(cloud, web=service(replicas=5)))["web-4"].host == ONE


async def test_pools_and_zones_are_made_changed_and_removed(cloud: Installation) -> None:
    control, admin = cloud.control, cloud.admin
    await control.zones.add(admin, "zone-9", "north")
    await control.pools.put(admin, "dense", zone="zone-9", memory_overcommit=8.0)

    changed = await control.pools.put(admin, "dense", cpu_overcommit=2.0)

    assert (changed.zone, changed.cpu_overcommit, changed.memory_overcommit) == ("zone-9", 2.0, 8.0)
    for refused in (
        control.zones.add(admin, "zone-9", "south"),
        control.zones.remove(admin, "zone"),
        control.pools.put(admin, "dense", zone="zone"),
        control.pools.remove(admin, "zone"),
    ):
        with pytest.raises(Conflict):
            await refused
    for unknown in (
        control.zones.remove(admin, "none"),
        control.pools.put(admin, "none"),
        control.pools.put(admin, "none", zone="none"),
        control.pools.put(admin, "dense", tenant="nobody"),
        control.pools.remove(admin, "none"),
    ):
        with pytest.raises(NotFound):
            await unknown
    with pytest.raises(InvalidInput, match="overcommit"):
        await control.pools.put(admin, "dense", cpu_overcommit=0.0)
    await control.pools.remove(admin, "dense")
    await control.zones.remove(admin, "zone-9")
    assert "zone-9" not in {zone.name for zone in await control.zones.list(admin)}


async def test_labels_of_hosts_are_set_and_removed(cloud: Installation) -> None:
    await cloud.control.hosts.label(cloud.admin, ONE, {"disk": "ssd", "rack": "7"})

    view = await cloud.control.hosts.label(cloud.admin, ONE, {"rack": None})

    assert view.labels == {"disk": "ssd"}
    with pytest.raises(InvalidInput, match="no label"):
        await cloud.control.hosts.label(cloud.admin, ONE, {"a b": "c"})
    many: dict[str, str | None] = {f"label-{number}": "" for number in range(65)}
    with pytest.raises(InvalidInput, match="64 at most"):
        await cloud.control.hosts.label(cloud.admin, ONE, many)


async def test_a_host_of_the_release_before_gets_releases_without_snapshots(
    cloud: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await released(cloud, db=service(mounts=(DATA,)))

    async def unknown(*_arguments: object) -> None:
        raise Unsupported("Release 0.1 does not know 'disks.snapshot'.")

    for name in ("snapshot", "snapshots"):
        monkeypatch.setattr(cloud.hosts[HostName(before["db-0"].host)].disks, name, unknown)

    after = await released(cloud, db=service("sleep", "1000", mounts=(DATA,)))
    await reconciler(cloud).reconcile()

    assert (after["db-0"].state, after["db-0"].revision) == ("running", 2)

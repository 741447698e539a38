"""Steps that write what a plan decided: the rows of a release, before and after its containers changed.

`claim` claims everything the plan needs (addresses, disks, published ports) in one transaction, so that
two apps can never be promised the same thing; its undo gives all of it back.  `finish` is the point of no
return: the release becomes the current one, and what it no longer needs loses its rows.  What has no row is
removed from the hosts by the reconciler of leftovers.
"""

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.flows import release_reach as reach
from skep.control.flows import release_rows as rows
from skep.control.flows.environment import Cloud
from skep.control.networks import fixed_addresses
from skep.control.networks.addresses import Addresses
from skep.control.plans import publications
from skep.control.plans.plans import Plan
from skep.control.telling.serving import FULL
from skep.flow import step
from skep.model.errors import Conflict, NotFound
from skep.model.ids import ReleaseId
from skep.store import apps, disks, networks, releases, replicas, snapshots
from skep.store.apps import AppRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ServiceRow
from skep.store.turns import Turn, take_turn


@step(kind="transactional")
async def begin(cx: Cloud, release: ReleaseId) -> None:
    """The release is under way; undone, it has failed, and an app that never had another is gone.

    Raises:
        Conflict: the app was changed since the plan was made.
    """
    _, app, plan = await _load(cx.tx, release)
    if app.version != plan.base_version:
        raise Conflict(f"App {app.name!r} was changed while this was being planned: apply again.")


@begin.undo
async def _abandon(cx: Cloud, release: ReleaseId) -> None:
    _, app, _ = await _load(cx.tx, release)
    await releases.set_state(cx.tx, release, "failed")
    if app.release_id is None:
        await apps.delete(cx.tx, app.id)


@step(kind="transactional")
async def claim(cx: Cloud, release: ReleaseId) -> None:
    """Claim what the release needs and make the rows of its replicas and containers.

    Raises:
        Conflict: a port is taken.
        Exhausted: a subnet is full.
    """
    await _claim(cx, release)


@claim.undo
async def _give_back(cx: Cloud, release: ReleaseId) -> None:
    await take_turn(cx.tx, Turn.CLAIMING)
    _, _, plan = await _load(cx.tx, release)
    if await _is_prepared(cx.tx, plan):
        await _take_back(cx.tx, plan)


@step(kind="transactional")
async def prepare(cx: Cloud, release: ReleaseId) -> None:
    """As claim, in documents of the release before: replicas have their new containers and serve at once."""
    await _claim(cx, release)
    _, _, plan = await _load(cx.tx, release)
    created = [change.replica for change in plan.replicas if change.action == "create"]
    await replicas.set_weights(cx.tx, dict.fromkeys(created, FULL))
    for change in rows.updated(plan):
        await replicas.set_container(cx.tx, change.replica, change.container)


@prepare.undo
async def _point_back(cx: Cloud, release: ReleaseId) -> None:
    await take_turn(cx.tx, Turn.CLAIMING)
    _, _, plan = await _load(cx.tx, release)
    if not await _is_prepared(cx.tx, plan):
        return
    for change in rows.updated(plan):
        if change.previous is not None:
            await replicas.set_container(cx.tx, change.replica, change.previous)
    await _take_back(cx.tx, plan)


async def _claim(cx: Cloud, release: ReleaseId) -> None:
    await take_turn(cx.tx, Turn.CLAIMING)
    row, app, plan = await _load(cx.tx, release)
    now = cx.env.now()
    addresses = Addresses(cx.tx, app.tenant_id, cx.env.networks, now)
    await addresses.add_networks(plan.networks, app.id)
    await replicas.insert_services(
        cx.tx,
        [
            ServiceRow(id=plan.services[name], tenant_id=app.tenant_id, app_id=app.id, name=name)
            for name in plan.new_services
        ],
    )
    await reach.join_groups(cx.tx, plan, row)
    await rows.insert_disks(cx.tx, plan, row)
    await rows.insert_replicas(cx.tx, plan, row)
    await rows.insert_snapshots(cx.tx, plan, app, now)
    await addresses.claim([(change.replica, port) for change in plan.replicas for port in change.ports])
    await fixed_addresses.claim(cx.tx, plan, row)
    await addresses.claim_virtual_ips(await reach.led(cx.tx, row.spec, app))
    await reach.publish(cx.tx, plan, row)
    await reach.claim_endpoints(cx.tx, plan, row, now)
    started = [change.replica for change in plan.replicas if change.action == "start"]
    await replicas.set_desired(cx.tx, started, "running")


@step(kind="transactional")
async def finish(cx: Cloud, release: ReleaseId) -> None:
    """Make the release the current one; what only the one before needed loses its rows."""
    row, app, plan = await _load(cx.tx, release)
    removed = [change.replica for change in plan.replicas if change.action == "remove"]
    removed += [change.replaces for change in plan.replicas if change.replaces is not None]
    obsolete = [change.container for change in plan.replicas if change.action == "remove"]
    obsolete += [change.previous for change in plan.replicas if change.previous is not None]
    kept = {change.system_disk for change in plan.replicas if change.action != "remove"}
    containers = {container.id: container for container in await replicas.containers_of(cx.tx, app.id)}
    gone = {containers[name].system_disk for name in obsolete if name in containers} - kept
    await networks.delete_ports(cx.tx, await rows.obsolete_ports(cx.tx, plan, app.id))
    await replicas.delete_containers(cx.tx, obsolete)
    await replicas.delete(cx.tx, removed)
    await replicas.take_places(cx.tx, [row.replica for row in plan.replicas if row.action == "stand-in"])
    stays = publications.kept(plan, row.spec).values()
    await networks.delete_published(cx.tx, [port.id for port in plan.published_before if port not in stays])
    await reach.settle_endpoints(cx.tx, plan, row)
    await replicas.delete_services(cx.tx, plan.removed_services)
    await reach.give_virtual_ips_back(cx.tx, row.spec, app)
    await disks.delete(cx.tx, gone)
    await rows.change_disks(cx.tx, plan)
    if app.release_id is not None:
        await releases.set_state(cx.tx, app.release_id, "superseded")
    await releases.set_state(cx.tx, release, "current")
    await apps.save(
        cx.tx,
        msgspec.structs.replace(
            app,
            release_id=release,
            revision=row.revision,
            version=app.version + 1,
            updated=cx.env.now(),
        ),
    )


async def _load(tx: AsyncConnection, release: ReleaseId) -> tuple[ReleaseRow, AppRow, Plan]:
    row = await releases.get(tx, release)
    app = await apps.get(tx, row.app_id) if row is not None else None
    if row is None or app is None:
        raise NotFound(f"Release {release} is gone: its app was removed.")
    return row, app, msgspec.json.decode(row.plan, type=Plan)


async def _take_back(tx: AsyncConnection, plan: Plan) -> None:
    created = [change for change in plan.replicas if change.action in rows.NEW]
    updated = rows.updated(plan)
    await snapshots.delete(tx, [one.id for change in updated for one in change.snapshots])
    await networks.delete_ports(tx, rows.new_ports(plan))
    await replicas.delete_containers(tx, [change.container for change in created + updated])
    await replicas.delete(tx, [change.replica for change in created])
    await reach.unpublish(tx, plan)
    app = await apps.get(tx, plan.app)
    before = await releases.get(tx, app.release_id) if app is not None and app.release_id else None
    await reach.release_endpoints(tx, plan, before)
    await replicas.delete_services(tx, [plan.services[name] for name in plan.new_services])
    if app is not None and before is not None:
        await reach.set_groups(tx, plan, before.spec)
        await reach.give_virtual_ips_back(tx, before.spec, app)
    await disks.delete(tx, [*(disk.id for disk in plan.disks), *rows.new_system_disks(plan)])
    await rows.leave_again(tx, plan)
    await networks.delete(tx, await rows.unused_networks(tx, plan))
    stopped = [change for change in plan.replicas if change.action in ("start", "update")]
    stopped = [change for change in stopped if change.before == "stopped"]
    await replicas.set_desired(tx, [change.replica for change in stopped], "stopped")


async def _is_prepared(tx: AsyncConnection, plan: Plan) -> bool:
    for change in plan.replicas:
        if change.action in (*rows.NEW, "update"):
            return await replicas.container(tx, change.container) is not None
    return True

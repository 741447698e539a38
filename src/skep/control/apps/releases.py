"""The releases of an app: its history, how two of them differ, and going back.

A release never changes: going back is another release, made of what an older one was made of.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.apps.apps import Apps
from skep.control.apps.histories import before, before_by_hand, between, changed
from skep.control.apps.retention import IN_FORCE
from skep.control.apps.validation import check
from skep.control.apps.wanted import Wanted
from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.plans import facts
from skep.control.plans.facts import AppRecord
from skep.flow import Database
from skep.model.errors import Conflict, NotFound, Unsupported
from skep.model.ids import DiskId, SnapshotId
from skep.model.needs import Need
from skep.model.views.base import Accepted
from skep.model.views.releases import ReleaseDetail, ReleaseDiff, ReleaseView
from skep.store import clusters, disks, releases, replicas, snapshots
from skep.store.releases import ReleaseRow


class Releases:
    def __init__(self, database: Database, apps: Apps) -> None:
        self._database = database
        self._apps = apps

    async def show(self, caller: Caller, app: str, revision: int) -> ReleaseDetail:
        """Raises NotFound: there is none of that number, or it was forgotten."""
        record, history = await self._history(caller, app)
        row = _find(history, app, revision)
        found = between(before(history, row), row)
        return ReleaseDetail(release=_view(record, history, row), spec=row.spec, differences=found)

    async def diff(self, caller: Caller, app: str, start: int, end: int | None = None) -> ReleaseDiff:
        """What has to change to come from one revision to another, by default to the current one."""
        record, history = await self._history(caller, app)
        first, second = (_find(history, app, number) for number in (start, end or record.app.revision))
        return ReleaseDiff(
            app=app,
            before=first.revision,
            after=second.revision,
            differences=between(first, second),
        )

    async def rollback(
        self, caller: Caller, app: str, revision: int | None = None, *, with_data: bool = False
    ) -> Accepted:
        """Make the app what it was in an older revision, by default in the one in force before this one.

        Its images are those of then, wherever their references point today.  `with_data`: so is what its data
        disks hold, as it left them; what was written since is lost, unless this is taken back.

        Raises:
            NotFound: there is no such revision any more.  Conflict: it was never in force, or is now, or
            another run is changing the app.
        """
        caller.must_change()

        async def think() -> Wanted:
            record, history = await self._history(caller, app)
            target = _target(record, history, revision)
            check(target.spec, caller)
            if with_data:
                await self._must_have_snapshots(record)
            data = await self._data(target) if with_data else {}
            if with_data and not data:
                raise Conflict(
                    f"There are no snapshots of the data that revision {target.revision} left: they are made "
                    "when a replica that writes to data disks is replaced."
                )
            return Wanted(
                spec=target.spec,
                images=target.images,
                base=record.app.version,
                note=f"rollback to {target.revision}",
                verb="roll back",
                rollback=True,
                keep_scale=True,
                data=data,
            )

        return await self._apps.release(caller, app, think)

    async def _must_have_snapshots(self, record: AppRecord) -> None:
        """Raises Unsupported: the app is where disks have none."""
        async with self._database.read() as connection:
            there = {row.host for row in await replicas.find(connection, app=record.app.id)}
            known = await clusters.every(connection)
        for one in known:
            if one.host in there and Need.SNAPSHOTS in one.lacks:
                raise Unsupported(
                    f"Zone {one.zone!r} is a Kubernetes cluster without snapshots of disks: what data disks "
                    "hold cannot be brought back. Roll back without --with-data, and restore the data by the "
                    "app's own means."
                )

    async def list(self, caller: Caller, app: str) -> list[ReleaseView]:
        """Newest first."""
        record, history = await self._history(caller, app)
        return [_view(record, history, row) for row in history]

    async def _data(self, target: ReleaseRow) -> dict[DiskId, SnapshotId]:
        """What each disk held when the release was left last; not of those that stayed where the app was."""
        async with self._database.read() as connection:
            made = await snapshots.every(connection, tenant=target.tenant_id, release=target.id)
            left = {row.id for row in await disks.every(connection, app=target.app_id) if row.side}
        return {row.disk_id: row.id for row in made if row.disk_id not in left}

    async def _history(self, caller: Caller, app: str) -> tuple[AppRecord, Sequence[ReleaseRow]]:
        async with self._database.read() as connection:
            return await _read(connection, caller, app)


async def _read(
    connection: AsyncConnection, caller: Caller, app: str
) -> tuple[AppRecord, Sequence[ReleaseRow]]:
    record = await facts.load_app(connection, caller.tenant, app)
    return record, await releases.of_app(connection, record.app.id)


def _find(history: Sequence[ReleaseRow], app: str, revision: int) -> ReleaseRow:
    for row in history:
        if row.revision == revision:
            return row
    raise NotFound(f"App {app!r} has no revision {revision} (any more); see 'skep releases {app}'.")


def _target(record: AppRecord, history: Sequence[ReleaseRow], revision: int | None) -> ReleaseRow:
    app = record.app.name
    if record.release is None:
        raise Conflict(f"App {app!r} has no release in force yet: there is nothing to go back from.")
    if revision is None:
        target = before_by_hand(history, record.release)
        if target is None:
            raise Conflict(f"App {app!r} has no release from before revision {record.app.revision}.")
        return target
    row = _find(history, app, revision)
    if row.id == record.release.id:
        raise Conflict(f"Revision {revision} of app {app!r} is in force.")
    if row.state not in IN_FORCE:
        raise Conflict(f"Revision {revision} of app {app!r} is {row.state}: it never was in force.")
    return row


def _view(record: AppRecord, history: Sequence[ReleaseRow], row: ReleaseRow) -> ReleaseView:
    return ReleaseView(
        id=row.id,
        app=record.app.name,
        revision=row.revision,
        created=rfc3339(row.created),
        created_by=row.created_by,
        current=row.id == record.app.release_id,
        services=tuple(row.spec.services),
        images={service: info.digest for service, info in row.images.items()},
        state=row.state,
        note=row.note,
        changed=changed(history, row),
    )

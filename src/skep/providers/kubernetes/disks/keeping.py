"""The snapshots of a cluster's disks: made, waited for, deleted; those that others delete are told."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from lightkube import codecs
from lightkube.resources.storage_v1 import StorageClass

from skep.model.errors import Conflict, NotFound, Unavailable, Unsupported
from skep.model.ids import DiskId, SnapshotId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.watching import Change, Watched
from skep.providers.kubernetes.disks.hearing import heard
from skep.providers.kubernetes.disks.kept import Kept, kept, manifest, snapshot_name
from skep.providers.kubernetes.joining.snapshots import (
    SnapshotClass,
    VolumeSnapshot,
    VolumeSnapshotClass,
    chosen,
    read,
)
from skep.providers.kubernetes.manifests import TenantNamespace

_CUT_WITHIN, _READY_WITHIN, _GONE_WITHIN = 180.0, 900.0, 120.0
"""Seconds.  Some drivers copy a snapshot elsewhere before a disk can be made of it."""
_log = structlog.get_logger(__name__)


class Keeping:
    """Nothing is asked of a cluster that has no snapshots, until `look` finds that it has."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._watched: Watched[Any] | None = None
        self._unwanted: set[str] = set()

    async def look(self) -> tuple[SnapshotClass, ...]:
        """The classes that there are now; snapshots are followed once there is one."""
        classes = await snapshot_classes(self._cluster)
        if classes and self._watched is None:
            watched = await self._cluster.watched(VolumeSnapshot)
            if not await watched.allowed():
                return ()
            watched.subscribe(self._heard)
            self._watched = watched
        return classes

    async def sweep(self) -> None:
        """What an earlier process asked for, and was not made before it ended, nobody waits for."""
        for one in self.all():
            if not one.cut and not one.going:
                await self._delete(one)

    def all(self) -> list[Kept]:
        """Those on their way, and those on their way out, too."""
        found = self._watched.all() if self._watched is not None else []
        return [one for one in map(kept, found) if one is not None]

    def get(self, snapshot: SnapshotId) -> Kept | None:
        """One that holds what its disk held."""
        return next((one for one in self.all() if one.id == snapshot and one.cut and not one.going), None)

    async def class_for(self, storage_class: str) -> str:
        """Of the snapshots of its volumes.  Raises Unsupported: it has none."""
        known = await self._cluster.list(StorageClass, labels={})
        drivers = (one.provisioner for one in known if one.metadata and one.metadata.name == storage_class)
        driver = next(drivers, "")
        found = chosen(await self.look(), driver)
        if found is None:
            await self._must_be_seen()
            raise Unsupported(
                f"There are no snapshots of disks of storage class {storage_class!r}: no VolumeSnapshotClass "
                f"of the cluster is for {driver or 'its driver'}."
            )
        return found.name

    async def _must_be_seen(self) -> None:
        """Raises Forbidden: skep may not see what there is of them."""
        with suppress(NotFound):
            await self._cluster.list(VolumeSnapshotClass, labels={})
            await self._cluster.list(VolumeSnapshot)

    async def make(
        self, of: TenantNamespace, disk: DiskId, claim: str, snapshot: SnapshotId, snapshot_class: str
    ) -> None:
        """It holds what the claim's volume holds now; one that is there stays as it is.

        Raises Unavailable: it does not come to be; then nothing of it is left.
        """
        watched = await self._followed()
        await self._must_be_gone(snapshot)
        with suppress(Conflict):
            made = manifest(of, disk, claim, snapshot, snapshot_class)
            await self._cluster.create(codecs.from_dict(made))
        try:
            await _until(watched, lambda: self.get(snapshot) is not None, _CUT_WITHIN)
        except TimeoutError:
            whys = [one.why for one in self.all() if one.id == snapshot]
            await self.delete(snapshot)
            raise Unavailable(" ".join([f"No snapshot of disk {disk} is made.", *whys])) from None

    async def ready(self, snapshot: SnapshotId) -> Kept:
        """Once a disk can be made of it.

        Raises:
            NotFound: there is none.  Unavailable: it does not become so.
        """
        if (found := self.get(snapshot)) is None:
            raise NotFound(
                f"There is no snapshot {snapshot} in this cluster: it was never made, or somebody deleted "
                f"the VolumeSnapshot {snapshot_name(snapshot)}."
            )
        watched = await self._followed()
        try:
            await _until(watched, lambda: (one := self.get(snapshot)) is None or one.ready, _READY_WITHIN)
        except TimeoutError:
            raise Unavailable(
                f"No disk can be made of snapshot {snapshot} yet. {(self.get(snapshot) or found).why}"
            ) from None
        return self.get(snapshot) or await self.ready(snapshot)

    async def delete(self, snapshot: SnapshotId) -> None:
        for one in self.all():
            if one.id == snapshot:
                await self._delete(one)

    async def delete_of(self, disk: DiskId) -> None:
        for one in self.all():
            if one.disk == disk:
                await self._delete(one)

    async def _delete(self, one: Kept) -> None:
        """It is on its way out afterwards."""
        watched = await self._followed()
        self._unwanted.add(one.name)
        await self._cluster.delete(VolumeSnapshot, one.name, one.namespace)
        await heard(watched, lambda: all(o.name != one.name or o.going for o in self.all()), "snapshots")

    async def _must_be_gone(self, snapshot: SnapshotId) -> None:
        """One of that name that is on its way out is no snapshot any more."""
        watched = await self._followed()
        try:
            await _until(
                watched, lambda: not any(one.id == snapshot and one.going for one in self.all()), _GONE_WITHIN
            )
        except TimeoutError:
            raise Unavailable(
                f"Snapshot {snapshot} is still being deleted: see 'kubectl describe volumesnapshot "
                f"{snapshot_name(snapshot)}'."
            ) from None

    async def _followed(self) -> Watched[Any]:
        await self.look()
        if self._watched is None:
            raise Unsupported("The cluster makes no snapshots of disks.")
        return self._watched

    def _heard(self, change: Change[Any]) -> None:
        found = kept(change.object)
        if found is None or not (change.gone or found.going):
            return
        if found.name not in self._unwanted:
            where = {"snapshot": found.id, "disk": found.disk, "namespace": found.namespace}
            _log.warning("cluster.drift", object="deleted", name=found.name, **where)
            self._unwanted.add(found.name)  # it is said once
        if change.gone:
            self._unwanted.discard(found.name)


async def snapshot_classes(cluster: Cluster) -> tuple[SnapshotClass, ...]:
    """None where they are not served, or where skep may not see them."""
    try:
        return tuple(map(read, await cluster.seen(VolumeSnapshotClass, labels={}) or ()))
    except NotFound:
        return ()


async def _until(watched: Watched[Any], holds: Callable[[], bool], seconds: float) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        await watched.until(holds)

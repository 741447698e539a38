"""The disks of a cluster.  Satisfies `DiskPool` of control.

Data disks are claims in the namespaces of their tenants.  A system disk is no object: what a container writes
to its root is bounded by the limit of ephemeral storage that its pod has, and goes with the pod; so a hundred
replicas ask for nothing here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lightkube import codecs
from lightkube.resources.core_v1 import PersistentVolumeClaim
from lightkube.resources.storage_v1 import StorageClass

from skep.model.errors import Conflict, InvalidInput, NotFound, SkepError, Stale, Unsupported
from skep.model.host import DiskSpec, DiskUsage, PoolUsage
from skep.model.ids import Bytes, DiskId, SnapshotId, TenantId
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.disks import claims
from skep.providers.kubernetes.disks.hearing import WITHIN, heard
from skep.providers.kubernetes.disks.keeping import Keeping
from skep.providers.kubernetes.disks.porting import Porting
from skep.providers.kubernetes.disks.restoring import Restoring
from skep.providers.kubernetes.manifests import TenantNamespace
from skep.providers.kubernetes.tenants.tenants import Tenants
from skep.streams.sealing import unsealed


class ClaimPool:
    """Entered, it knows what is there.

    `porter`: answers the image that carries what disks hold.  `storage_class`: empty for the default one.
    """

    def __init__(
        self,
        cluster: Cluster,
        tenants: Tenants,
        porter: Callable[[], Awaitable[str]],
        *,
        storage_class: str = "",
    ) -> None:
        self._cluster = cluster
        self._tenants = tenants
        self._porting = Porting(cluster, porter)
        self._keeping = Keeping(cluster)
        self._restoring = Restoring(cluster, self._porting)
        self._class = storage_class
        self._turns: dict[DiskId, asyncio.Lock] = {}
        self._arriving: dict[DiskId, object] = {}
        self._system: dict[DiskId, DiskSpec] = {}
        self._claims: Watched[PersistentVolumeClaim]

    async def __aenter__(self) -> Self:
        self._claims = await (await self._cluster.watched(PersistentVolumeClaim)).synced()
        await self._porting.sweep()
        await self._restoring.sweep()
        await self.look()
        await self._keeping.sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The cluster ends its watches."""
        with suppress(SkepError, TimeoutError):  # a cluster that does not answer ends them in its own time
            async with asyncio.timeout(WITHIN):
                await self._porting.close()

    async def look(self) -> None:
        """Snapshots may be had from now on, if the cluster has what they take."""
        await self._keeping.look()

    async def create(self, disk: DiskSpec) -> None:
        there = self._usage(disk.id)
        if there is not None and (there.size, there.kind) != (disk.size, disk.kind):
            raise Conflict(f"Disk {disk.id} exists as a {there.kind} disk of {there.size} bytes.")
        if there is not None:
            return
        if disk.kind == "system":
            self._system[disk.id] = disk
            return
        await self._claim(disk)

    async def resize(self, disk: DiskId, size: Bytes) -> None:
        """Raises Unsupported: its class does not let it grow, or it would become smaller."""
        if (there := self._usage(disk)) is None:
            raise NotFound(f"There is no disk {disk} in this cluster.")
        if there.size == size:
            return
        if there.kind == "system":
            raise Unsupported(
                "The root of a container in a cluster keeps its size: make the container again."
            )
        if size < there.size:
            raise Unsupported(
                f"Disks of a cluster do not become smaller: this one has {there.size / 2**20:g} MiB."
            )
        await self._grow(disk, size)

    async def path(self, disk: DiskId) -> Path:
        raise Unsupported("A disk of a cluster is mounted where its pod is; there is no path to it here.")

    async def delete(self, disk: DiskId) -> None:
        if self._system.pop(disk, None) is not None:
            return
        await self._keeping.delete_of(disk)
        if (found := self._found(disk)) is None:
            return
        namespace, name = claims.place(found)
        tenant = _tenant(found)
        async with self._tenants.turn(tenant):
            await self._restoring.sweep(disk)
            await self._cluster.delete(PersistentVolumeClaim, name, namespace)
            await heard(self._claims, lambda: self._found(disk) is None)
            await self._tenants.release(tenant)

    async def list(self) -> dict[DiskId, DiskUsage]:
        """How full they are only their nodes know: 0."""
        system = {key: _system_usage(one) for key, one in self._system.items()}
        every = claims.current(self._claims.all())
        return system | {key: claims.usage(one) for key, one in every.items()}

    async def usage(self) -> PoolUsage:
        """What the claims add up to; what the cluster could give beyond nobody says, so nothing is free."""
        whole = Bytes(sum(one.size for one in (await self.list()).values() if one.kind == "data"))
        return PoolUsage(total=whole, used=whole, free=Bytes(0))

    async def snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        """Raises Unsupported: the driver of its class makes none.  Unavailable: it is not made, and why."""
        of, claim = self._carried(disk)
        found = self._claims.get(claim, of.name)
        storage_class = (found and found.spec and found.spec.storageClassName) or ""
        snapshot_class = await self._keeping.class_for(storage_class)
        async with self._turn(disk):
            await self._restoring.bind(of, disk, claim)
            await self._keeping.make(of, disk, claim, snapshot, snapshot_class)

    async def restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        async with self._turn(disk):
            of, _ = self._carried(disk)
            kept = await self._keeping.ready(snapshot)
            if (before := self._found(disk)) is None:
                raise NotFound(f"There is no disk {disk} in this cluster.")
            spec = DiskSpec(id=disk, size=claims.usage(before).size, kind="data", tenant=of.tenant)
            await self._restoring.restore(of, spec, before, kept)

    async def delete_snapshot(self, snapshot: SnapshotId) -> None:
        await self._keeping.delete(snapshot)

    async def snapshots(self) -> dict[SnapshotId, DiskId]:
        return {one.id: one.disk for one in self._keeping.all() if one.cut and not one.going}

    def claim(self, disk: DiskId) -> str:
        """What pods call it now: another claim once it has gone back to a snapshot."""
        found = self._found(disk)
        return claims.claim_name(disk) if found is None else claims.place(found)[1]

    async def export(self, disk: DiskId, since: str = "") -> AsyncIterator[bytes]:
        """As it is read: what a container writes meanwhile may be in it or not."""
        async with self._turn(disk):
            of, claim = self._carried(disk)
            async with aclosing(self._porting.send(of, disk, claim, since)) as content:
                async for block in content:
                    yield block

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        self._carried(disk)
        mine = self._arriving[disk] = object()

        def still() -> None:
            if self._arriving.get(disk) is not mine:
                raise Stale(f"Disk {disk} is received by somebody else, who began later.")

        async with self._turn(disk):
            still()
            of, claim = self._carried(disk)
            await self._porting.take(of, disk, claim, unsealed(stream), still, onto)

    async def fingerprint(self, disk: DiskId) -> str:
        async with self._turn(disk):
            of, claim = self._carried(disk)
            return await self._porting.look(of, disk, claim)

    def system_disk(self, disk: DiskId) -> Bytes | None:
        """How large the engine is to let the root of a container become; None: nobody has said."""
        return self._system[disk].size if disk in self._system else None

    # -- claims -------------------------------------------------------------------------------------

    async def _claim(self, disk: DiskSpec) -> None:
        if not disk.tenant:
            raise InvalidInput(f"Disk {disk.id} is nobody's: a cluster keeps disks with their tenant.")
        chosen = claims.chosen(await self._cluster.list(StorageClass, labels={}), self._class)
        name = (chosen.metadata and chosen.metadata.name) or ""
        async with self._tenants.turn(disk.tenant):
            of = await self._tenants.ensure(disk.tenant)
            with suppress(Conflict):
                await self._cluster.create(codecs.from_dict(claims.claim(of, disk, name)))
            await heard(self._claims, lambda: self._found(disk.id) is not None)
        if (there := self._usage(disk.id)) is None or there.size != disk.size:
            raise Conflict(f"Disk {disk.id} exists, and is another one.")

    async def _grow(self, disk: DiskId, size: Bytes) -> None:
        if (found := self._found(disk)) is None:
            raise NotFound(f"There is no disk {disk} in this cluster.")
        name = (found.spec and found.spec.storageClassName) or ""
        known = await self._cluster.list(StorageClass, labels={})
        claims.must_grow(
            next((one for one in known if one.metadata and one.metadata.name == name), None), name
        )
        if not (found.spec and found.spec.volumeName):
            await self._replace(found, size)
            return
        namespace, claim = claims.place(found)
        await self._cluster.patch(PersistentVolumeClaim, claim, claims.larger(found, size), namespace)
        await heard(self._claims, lambda: (there := self._usage(disk)) is not None and there.size >= size)

    async def _replace(self, found: PersistentVolumeClaim, size: Bytes) -> None:
        """A claim that no pod has used yet has no volume, and cannot be changed."""
        namespace, name = claims.place(found)
        disk, tenant = claims.disk_of(found), _tenant(found)
        if disk is None:
            return
        async with self._tenants.turn(tenant):
            await self._cluster.delete(PersistentVolumeClaim, name, namespace)
            await heard(self._claims, lambda: self._claims.get(name, namespace) is None)
            spec = DiskSpec(id=disk, size=size, kind="data", tenant=tenant)
            storage_class = (found.spec and found.spec.storageClassName) or ""
            made = claims.claim(self._tenants.of(tenant), spec, storage_class)
            await self._cluster.create(codecs.from_dict(made))
            await heard(self._claims, lambda: self._found(disk) is not None)

    def _carried(self, disk: DiskId) -> tuple[TenantNamespace, str]:
        """Where its claim is, and what that is called."""
        if disk in self._system:
            raise Unsupported("The root of a container in a cluster is not kept, and not sent anywhere.")
        if (found := self._found(disk)) is None:
            raise NotFound(f"There is no disk {disk} in this cluster.")
        return self._tenants.of(_tenant(found)), claims.place(found)[1]

    def _turn(self, disk: DiskId) -> asyncio.Lock:
        """One at a time mounts it to carry what it holds."""
        return self._turns.setdefault(disk, asyncio.Lock())

    def _found(self, disk: DiskId) -> PersistentVolumeClaim | None:
        return claims.current(self._claims.labelled(disk=disk)).get(disk)

    def _usage(self, disk: DiskId) -> DiskUsage | None:
        if disk in self._system:
            return _system_usage(self._system[disk])
        found = self._found(disk)
        return None if found is None else claims.usage(found)


def _system_usage(disk: DiskSpec) -> DiskUsage:
    return DiskUsage(size=disk.size, used=Bytes(0), kind="system")


def _tenant(found: PersistentVolumeClaim) -> TenantId:
    return TenantId(((found.metadata and found.metadata.labels) or {})[mark("tenant")])

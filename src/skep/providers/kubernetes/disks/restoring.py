"""A disk goes back to what a snapshot holds.

A claim cannot: another one is made of the snapshot beside it, and takes its place at the one moment when it
gets the disk's label, which is not before its volume is there with all that it begins with.

Whoever is killed before that has changed nothing, and what it made is taken over by the next who asks, or
swept; whoever is killed afterwards leaves the claim of before, which is swept.
"""

import asyncio
from contextlib import suppress

from lightkube import codecs
from lightkube.resources.core_v1 import PersistentVolume, PersistentVolumeClaim

from skep.model.errors import Conflict, NotFound, Unavailable
from skep.model.host import DiskSpec
from skep.model.ids import DiskId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.disks import claims
from skep.providers.kubernetes.disks.hearing import heard
from skep.providers.kubernetes.disks.kept import Kept
from skep.providers.kubernetes.disks.porting import Porting
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace

_GONE_WITHIN, _BOUND_WITHIN = 120.0, 900.0
"""Seconds; some drivers copy all that a snapshot holds."""


class Restoring:
    def __init__(self, cluster: Cluster, porting: Porting) -> None:
        self._cluster = cluster
        self._porting = porting

    async def sweep(self, disk: DiskId | None = None) -> None:
        """What is on the way to a disk (to this one), or was it before, goes."""
        watched = await self._claims()
        for one in claims.outdated(watched.all(), disk):
            await self._delete(one)

    async def bind(self, of: TenantNamespace, disk: DiskId, claim: str, like: str = "") -> None:
        """The claim's volume is there; if it can be, where the volume `like` is.

        Classes may wait for a pod before they make it, so one asks for it.
        Raises Unavailable: the cluster does not make it.
        """
        watched = await self._claims()
        if claims.is_bound(watched.get(claim, of.name)):
            return
        async with self._porting.placed(of, disk, claim, await self._near(like)):
            try:
                async with asyncio.timeout(_BOUND_WITHIN):
                    await watched.until(lambda: claims.is_bound(watched.get(claim, of.name)))
            except TimeoutError:
                why = await self._porting.why(of, disk, claim)
                raise Unavailable(f"The cluster makes no volume for {claim}. {why}".strip()) from None

    async def restore(
        self, of: TenantNamespace, disk: DiskSpec, before: PersistentVolumeClaim, kept: Kept
    ) -> None:
        """The disk, whose claim was that, holds what was kept.  Raises Unavailable."""
        watched = await self._claims()
        made = await self._made(of, disk, before, kept)
        name = claims.place(made)[1]
        await self.bind(of, disk.id, name, (before.spec and before.spec.volumeName) or "")
        uid = (made.metadata and made.metadata.uid) or ""
        await self._cluster.patch(PersistentVolumeClaim, name, claims.arrived(disk.id, uid), of.name)
        await heard(watched, lambda: _is(claims.current(watched.all()).get(disk.id), name))
        await self.sweep(disk.id)

    async def _made(
        self, of: TenantNamespace, disk: DiskSpec, before: PersistentVolumeClaim, kept: Kept
    ) -> PersistentVolumeClaim:
        """The claim that is to take its place; one that somebody began who is gone, if it is of the same."""
        watched, number = await self._claims(), claims.generation(before) + 1
        name = claims.claim_name(disk.id, number)
        there = watched.get(name, of.name)
        if there is not None and (claims.source(there) != kept.name or claims.is_going(there)):
            await self._delete(there)
            await self._gone(name, of.name)
        storage_class = (before.spec and before.spec.storageClassName) or ""
        wanted = claims.restored(of, disk, storage_class, number, kept.name, kept.room)
        with suppress(Conflict):
            await self._cluster.create(codecs.from_dict(wanted))
        await heard(watched, lambda: watched.get(name, of.name) is not None)
        return await self._cluster.get(PersistentVolumeClaim, name, of.name)

    async def _near(self, volume: str) -> list[Manifest]:
        """Where the volume can be reached, as terms of node selectors; none if that is everywhere."""
        if not volume:
            return []
        with suppress(NotFound):
            found = await self._cluster.get(PersistentVolume, volume)
            affinity = found.spec and found.spec.nodeAffinity
            terms = (affinity and affinity.required and affinity.required.nodeSelectorTerms) or []
            return [one.to_dict() for one in terms]
        return []

    async def _delete(self, one: PersistentVolumeClaim) -> None:
        namespace, name = claims.place(one)
        await self._cluster.delete(PersistentVolumeClaim, name, namespace)

    async def _gone(self, name: str, namespace: str) -> None:
        watched = await self._claims()
        try:
            async with asyncio.timeout(_GONE_WITHIN):
                await watched.until(lambda: watched.get(name, namespace) is None)
        except TimeoutError:
            raise Unavailable(
                f"{name} is still being deleted: see 'kubectl --namespace {namespace} describe pvc {name}'."
            ) from None

    async def _claims(self) -> Watched[PersistentVolumeClaim]:
        return await (await self._cluster.watched(PersistentVolumeClaim)).synced()


def _is(found: PersistentVolumeClaim | None, name: str) -> bool:
    return found is not None and claims.place(found)[1] == name

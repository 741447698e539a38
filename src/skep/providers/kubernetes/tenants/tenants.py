"""The namespaces of tenants: there as soon as anything of theirs is, and gone with the last of it.

A namespace takes everything along that is in it, disks too: so it goes only when no disk is left.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from lightkube import codecs
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.resources.core_v1 import (
    ConfigMap,
    LimitRange,
    Namespace,
    PersistentVolumeClaim,
    ResourceQuota,
)
from lightkube.resources.networking_v1 import NetworkPolicy

from skep.model.errors import Conflict, Forbidden, NotFound, Unavailable
from skep.model.ids import TenantId
from skep.providers.kubernetes.applied import stamped, stands
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants.namespaces import Bounds

_GOING = 120.0
"""Seconds in which what is being deleted must be gone."""
_SOON = (0.1, 0.3, 1.0, 3.0)
"""Seconds until a cluster has heard of what was made there a moment ago."""
_BELIEVED = 60.0
"""Seconds for which what was read of all namespaces is taken for what is there."""
Thing = tuple[str, str, str]
"""Kind, namespace and name."""


def _nothing(of: TenantNamespace) -> list[Manifest]:
    return []


@dataclass
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    whole: bool = False
    """Everything that a namespace has before anything runs there was put into it."""


class Tenants:
    """One per cluster; whoever makes or deletes what keeps a namespace does it in the tenant's turn."""

    def __init__(
        self,
        cluster: Cluster,
        bounds: Bounds | None = None,
        furnish: Callable[[TenantNamespace], list[Manifest]] = _nothing,
    ) -> None:
        """`furnish`: what else each namespace has from the start."""
        self._cluster = cluster
        self._furnish = furnish
        self._bounds = bounds or Bounds()
        self._turns: dict[TenantId, _Turn] = {}
        self._everywhere: bool | None = None
        self._limits: dict[Thing, Any] | None = None
        """What an earlier process left, for the first `ensure` of its tenant; None: nobody has looked."""
        self._asking = asyncio.Lock()

    async def watched(self) -> Watched[Namespace]:
        return await (await self._cluster.watched(Namespace)).synced()

    def of(self, tenant: TenantId) -> TenantNamespace:
        return TenantNamespace(self._cluster.installation, tenant)

    async def known(self) -> list[TenantId]:
        """Whose namespaces are there."""
        found = [(one.metadata and one.metadata.labels) or {} for one in (await self.watched()).all()]
        return [TenantId(labels[mark("tenant")]) for labels in found if mark("tenant") in labels]

    @asynccontextmanager
    async def turn(self, tenant: TenantId) -> AsyncIterator[None]:
        """Nobody else makes or deletes the namespace meanwhile."""
        async with self._turn(tenant).lock:
            yield

    async def ensure(self, tenant: TenantId) -> TenantNamespace:
        """In the tenant's turn: the namespace is there, with rights, limits and walls.

        Raises:
            Conflict: a namespace of this name is somebody else's.
            Unavailable: the one of before is still on its way out.
        """
        of, turn = self.of(tenant), self._turn(tenant)
        watched = await self.watched()
        if turn.whole and (found := watched.get(of.name)) is not None and not _going(found):
            return of
        turn.whole = True  # what is lost from now on is heard of
        try:
            await self._make(of, watched)
        except BaseException:
            turn.whole = False
            raise
        return of

    async def refresh(self) -> None:
        """What namespaces are furnished with may be another by now."""
        known = map(self.of, await self.known())
        await self._apply(*(one for of in known for one in self._furnish(of)))

    async def release(self, tenant: TenantId) -> bool:
        """In the tenant's turn: delete the namespace unless something needs it.  Answers whether it goes."""
        of = self.of(tenant)
        if (await self.watched()).get(of.name) is None:
            return True
        claims = await self._cluster.list(PersistentVolumeClaim, of.name)
        records = await self._cluster.list(ConfigMap, of.name, of.labels(record="network"))
        if records or any(one.metadata and not one.metadata.deletionTimestamp for one in claims):
            return False
        self._turn(tenant).whole = False
        await self._cluster.delete(Namespace, of.name)
        return True

    def lost(self, tenant: TenantId, policy: str) -> bool:
        """Somebody deleted it.  Whether it was a wall: then the next `ensure` puts it up again."""
        turn = self._turn(tenant)
        lost = turn.whole and policy in namespaces.WALLS
        turn.whole = turn.whole and not lost
        return lost

    async def _make(self, of: TenantNamespace, watched: Watched[Namespace]) -> None:
        await self._gone(watched, of.name)
        there = await self._ours(of)
        if there is not None and _going(there):  # the watch had not told it yet
            await self._gone(watched, of.name, _uid(there))
            there = None
        made = namespaces.namespace(of)
        if there is None or not stands(made, there.to_dict()):
            await self._apply(made)
        if not await self._may_everywhere():
            with suppress(Conflict):
                await self._cluster.create(codecs.from_dict(namespaces.binding(of)))
        await self._fence(of, fresh=there is None)
        await watched.until(lambda: watched.get(of.name) is not None)

    def _turn(self, tenant: TenantId) -> _Turn:
        return self._turns.setdefault(tenant, _Turn())

    async def _gone(self, watched: Watched[Namespace], name: str, uid: str = "") -> None:
        """None of the name is on its way out; `uid`: of one that is, whatever the watch says."""

        def settled() -> bool:
            found = watched.get(name)
            return found is None or not (_going(found) or _uid(found) == uid)

        try:
            async with asyncio.timeout(_GOING):
                await watched.until(settled)
        except TimeoutError:
            found = watched.get(name)
            why = (found and namespaces.held_by(found)) or "nothing says what holds it"
            raise Unavailable(
                f"Namespace {name} is still being deleted: {why}. See 'kubectl describe namespace {name}'; "
                "when it is gone, ask again."
            ) from None

    async def _ours(self, of: TenantNamespace) -> Namespace | None:
        """As the cluster has it now.  Raises Conflict: it is somebody else's."""
        try:
            found = await self._cluster.get(Namespace, of.name)
        except NotFound:
            return None
        if not namespaces.is_ours((found.metadata and found.metadata.labels) or {}, of):
            raise Conflict(f"Namespace {of.name} is there, and not of this installation of skep.")
        return found

    async def _fence(self, of: TenantNamespace, *, fresh: bool) -> None:
        """Right after the binding API servers may not have heard of it.  `fresh`: none of it stands."""
        fences = namespaces.fences(of, self._bounds)
        new = [one for one in fences if fresh or not await self._stands(one)]
        for pause in _SOON:
            try:
                await self._apply(*new, *self._furnish(of))
                break
            except Forbidden:
                await asyncio.sleep(pause)
        else:
            await self._apply(*new, *self._furnish(of))
        if any(one["kind"] == "ResourceQuota" for one in new):
            await self._counted(of)

    async def _stands(self, fence: Manifest) -> bool:
        """Whether it is there as it is to be; never so of what an older role does not let skep see."""
        kind, place = fence["kind"], (fence["metadata"]["namespace"], fence["metadata"]["name"])
        if kind == "NetworkPolicy":
            walls = await self._cluster.watched(NetworkPolicy)
            found = walls.get(place[1], place[0]) if await walls.allowed() else None
        else:
            found = (await self._left()).pop((kind, *place), None)
        return found is not None and stands(fence, found.to_dict())

    async def _left(self) -> dict[Thing, Any]:
        async with self._asking:
            if self._limits is None:
                kinds: dict[str, type[Any]] = {"ResourceQuota": ResourceQuota, "LimitRange": LimitRange}
                found = await asyncio.gather(*(self._cluster.seen(kind) for kind in kinds.values()))
                self._limits = {
                    (name, one.metadata.namespace, one.metadata.name): one
                    for name, every in zip(kinds, found, strict=True)
                    for one in every or ()
                }
                asyncio.get_running_loop().call_later(_BELIEVED, self._limits.clear)
            return self._limits

    async def _counted(self, of: TenantNamespace) -> None:
        """Until a quota has been counted for the first time, whatever it is about is refused."""
        for pause in (*_SOON, 0):
            quota = await self._cluster.get(ResourceQuota, namespaces.QUOTA, of.name)
            if quota.status is not None and quota.status.hard:
                return
            await asyncio.sleep(pause)
        raise Unavailable(f"The quota of namespace {of.name} is not counted: does the quota controller run?")

    async def _apply(self, *manifests: Manifest) -> None:
        wanted = [codecs.from_dict(stamped(one)) for one in manifests]
        await asyncio.gather(*map(self._cluster.apply, wanted))

    async def _may_everywhere(self) -> bool:
        """Whether skep needs no binding: who gave it rights gave them for all namespaces."""
        async with self._asking:
            if self._everywhere is None:
                wanted = ResourceAttributes(verb="create", resource="configmaps")
                review = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=wanted))
                answer = await self._cluster.create(review)
                self._everywhere = bool(answer.status and answer.status.allowed)
            return self._everywhere


def _uid(found: Namespace) -> str:
    return (found.metadata and found.metadata.uid) or ""


def _going(found: Namespace) -> bool:
    return found.metadata is not None and found.metadata.deletionTimestamp is not None

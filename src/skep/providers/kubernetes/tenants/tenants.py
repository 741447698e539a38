"""The namespaces of tenants: there as soon as anything of theirs is, and gone with the last of it.

A namespace takes everything along that is in it, disks too: so it goes only when no disk is left.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from lightkube import codecs
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.resources.core_v1 import ConfigMap, Namespace, PersistentVolumeClaim

from skep.model.errors import Conflict, Forbidden, NotFound, Unavailable
from skep.model.ids import TenantId
from skep.providers.kubernetes.applied import stands
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.client.patience import SOON
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants.fences import Fences
from skep.providers.kubernetes.tenants.namespaces import Bounds

_GOING = 120.0
"""Seconds in which what is being deleted must be gone."""


def _nothing(of: TenantNamespace) -> list[Manifest]:
    return []


@dataclass
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    whole: bool = False
    """Everything that a namespace has before anything runs there was put into it."""
    furnished: bool = False


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
        self._fences = Fences(cluster, bounds or Bounds())
        self._turns: dict[TenantId, _Turn] = {}
        self._everywhere: bool | None = None
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
        await self._fill(of, fresh=there is None)
        await watched.until(lambda: watched.get(of.name) is not None)
        turn.whole = self._fences.are_up(of)
        return of

    async def refresh(self) -> None:
        """What namespaces are furnished with may be another by now."""
        known = [tenant for tenant in await self.known() if await self.keeps(tenant)]
        await self._apply(*(one for tenant in known for one in self._furnish(self.of(tenant))))
        for tenant in known:
            self._turn(tenant).furnished = True

    async def keeps(self, tenant: TenantId) -> bool:
        """Whether the tenant has a namespace, which nobody deletes."""
        found = (await self.watched()).get(self.of(tenant).name)
        return found is not None and not _going(found)

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
        self._fences.forget(of)
        await self._cluster.delete(Namespace, of.name)
        return True

    def fallen(self, tenant: TenantId, policy: str, uid: str | None = None) -> bool:
        """Take note that a policy (`uid`: that one) is gone.  Whether it was a wall, which the next `ensure`
        puts up again."""
        fallen = self._fences.fallen(self.of(tenant), policy, uid)
        if fallen:
            self._turn(tenant).whole = False
        return fallen

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

    async def _fill(self, of: TenantNamespace, *, fresh: bool) -> None:
        """Right after the binding API servers may not have heard of it."""
        turn = self._turn(of.tenant)
        turn.furnished = turn.furnished and not fresh
        for pause in (*SOON, None):
            try:
                await self._fences.put_up(of, fresh=fresh)
                if not turn.furnished:
                    await self._apply(*self._furnish(of))
                turn.furnished = True
                return
            except Forbidden:
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    async def _apply(self, *manifests: Manifest) -> None:
        await asyncio.gather(*(put(self._cluster, one) for one in manifests))

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

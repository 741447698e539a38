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
from skep.providers.kubernetes.client.side_by_side import side_by_side
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants.fences import Fences
from skep.providers.kubernetes.tenants.namespaces import Bounds

_GOING = 120.0
"""Seconds in which what is being deleted must be gone."""
_HEARD = 60.0
"""Seconds in which the watch tells of what was made."""


def _nothing(of: TenantNamespace) -> list[Manifest]:
    return []


@dataclass
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    filled: str = ""
    """The uid of the namespace that everything but walls was put into by this process."""
    whole: str = ""
    """Of the one in which the walls are up, too."""
    fallen: bool = False
    """A wall fell since they were last looked at."""
    leaving: str = ""
    """Of the one that this process has deleted."""


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
        self._watched: Watched[Namespace] | None = None
        self._everywhere: bool | None = None
        self._asking = asyncio.Lock()

    async def watched(self) -> Watched[Namespace]:
        self._watched = await (await self._cluster.watched(Namespace)).synced()
        return self._watched

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
        of = self.of(tenant)
        if self._is_whole(tenant, (watched := await self.watched()).get(of.name)):
            return of
        await self._gone(watched, of.name)
        there = await self._ours(of)
        if there is not None and _going(there):  # the watch had not told it yet
            await self._gone(watched, of.name, _uid(there))
            there = None
        uid = await self._complete(of, there)
        try:
            async with asyncio.timeout(_HEARD):
                await watched.until(lambda: (now := watched.get(of.name)) is not None and _uid(now) == uid)
        except TimeoutError:
            raise Unavailable(f"Namespace {of.name} was made, and is not heard of: ask again.") from None
        return of

    async def mend(self, tenant: TenantId) -> None:
        """As `ensure`, if the namespace is there; one that is not there, or goes, is nothing to be mended."""
        of = self.of(tenant)
        found = (await self.watched()).get(of.name)
        if not self._is_kept(tenant, found) or self._is_whole(tenant, found):
            return
        if (there := await self._ours(of)) is not None and not _going(there):
            await self._complete(of, there)

    async def release(self, tenant: TenantId) -> bool:
        """In the tenant's turn: delete the namespace unless something needs it.  Answers whether it goes."""
        of, turn = self.of(tenant), self._turn(tenant)
        found = (await self.watched()).get(of.name)
        if found is None or not self._is_kept(tenant, found):
            return True
        what_runs = of.labels() | {mark("carrier"): None}
        for records in (of.labels(record="network"), what_runs):
            if await self._cluster.list(ConfigMap, of.name, records):
                return False
        claims = await self._cluster.list(PersistentVolumeClaim, of.name)
        if any(one.metadata and not _going(one) for one in claims):
            return False
        await self._cluster.delete(Namespace, of.name)
        turn.leaving, turn.whole, turn.filled = _uid(found), "", ""
        return True

    def fallen(self, tenant: TenantId, policy: str) -> bool:
        """Take note that a policy is gone.  Whether it was a wall that is to be put up again: by `ensure`, or
        `mend`."""
        if policy not in namespaces.WALLS:
            return False
        turn = self._turn(tenant)
        turn.whole, turn.fallen = "", True
        return self._watched is not None and self._is_kept(tenant, self._watched.get(self.of(tenant).name))

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

    def _is_whole(self, tenant: TenantId, found: Namespace | None) -> bool:
        return found is not None and not _going(found) and self._turn(tenant).whole == _uid(found)

    def _is_kept(self, tenant: TenantId, found: Namespace | None) -> bool:
        """Whether there is one, which nobody has deleted."""
        return found is not None and not _going(found) and self._turn(tenant).leaving != _uid(found)

    async def _complete(self, of: TenantNamespace, there: Namespace | None) -> str:
        """Put all that is missing into the namespace, or into a new one; answers its uid."""
        turn, made = self._turn(of.tenant), namespaces.namespace(of)
        turn.whole, turn.fallen = "", False
        if there is None or not stands(made, there.to_dict()):
            uid = _uid(await put(self._cluster, made))
        else:
            uid = _uid(there)
        if turn.filled != uid and not await self._may_everywhere():
            with suppress(Conflict):
                await self._cluster.create(codecs.from_dict(namespaces.binding(of)))
        for pause in (*SOON, None):  # right after the binding API servers may not have heard of it
            try:
                await self._fill(of, uid, fresh=there is None)
                break
            except Forbidden:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        turn.whole = "" if turn.fallen else uid
        return uid

    async def _fill(self, of: TenantNamespace, uid: str, *, fresh: bool) -> None:
        turn = self._turn(of.tenant)
        await self._fences.put_up_walls(of, fresh=fresh)
        if turn.filled == uid:
            return
        await self._fences.put_up_limits(of, fresh=fresh)
        await side_by_side(*(self._cluster.apply(codecs.from_dict(one)) for one in self._furnish(of)))
        turn.filled = uid

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


def _going(found: Namespace | PersistentVolumeClaim) -> bool:
    return found.metadata is not None and found.metadata.deletionTimestamp is not None

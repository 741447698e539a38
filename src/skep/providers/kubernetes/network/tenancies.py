"""What tenants' networks are in the cluster is brought to what it is to be, for one tenant at a time.

Who changes something changes the record and waits for the next round, which takes along what others
changed meanwhile: a hundred plugs are a handful of requests.  Pods that come and go begin rounds by
themselves, and so does what somebody else deleted.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

import structlog
from lightkube.resources.core_v1 import ConfigMap, Endpoints, Namespace, Pod, Secret, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import Ingress, NetworkPolicy

from skep.model.errors import Forbidden, NotFound, SkepError, Unavailable
from skep.model.ids import ReplicaId, ServiceId, TenantId
from skep.providers.kubernetes.applied import digest
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.client.patience import Brake
from skep.providers.kubernetes.client.side_by_side import side_by_side
from skep.providers.kubernetes.client.together import Together
from skep.providers.kubernetes.client.watching import Change, Watched
from skep.providers.kubernetes.manifests import Manifest
from skep.providers.kubernetes.network.entrances import Entrance
from skep.providers.kubernetes.network.leading import SLICES
from skep.providers.kubernetes.network.records import RECORD
from skep.providers.kubernetes.network.standing import Bearing, Standing, bearing, replica, standing
from skep.providers.kubernetes.network.tenancy import KINDS, HttpRoute, Key, Tenancy, key_of
from skep.providers.kubernetes.network.wanted import Circumstances, wanted
from skep.providers.kubernetes.tenants.namespaces import WALLS
from skep.providers.kubernetes.tenants.tenants import Tenants

Certify = Callable[[str], Awaitable[bytes]]
"""The PEM of a certificate by its digest; raises NotFound."""

_HEALED = (Service, NetworkPolicy)
_STEPS = 3
"""The cluster gives addresses to services, and names lead to these: one step of a round after the other."""
_AGAIN, _GIVEN = 5.0, 60.0
"""Seconds until what the cluster could not do, and what it does not allow, is tried again."""
_GATHER, _EACH = 0.1, 0.03
"""Seconds in which news come together that nobody waits for, and for each port that the tenant has, for
which they rest after a round: all of its pods are written anew in it, and read by every node."""
_LONGEST = 2.0
"""Seconds for which news rest at the most."""
log = structlog.get_logger("skep.kubernetes")


class Tenancies:
    """Entered, it knows what a process before it left in the cluster.

    `certify` is asked for certificates of endpoints; `entrance` is what leads them, if anything does.
    """

    def __init__(
        self, cluster: Cluster, tenants: Tenants, certify: Certify, entrance: Entrance | None = None
    ) -> None:
        self.tenants = tenants
        self.entrance = entrance
        self._cluster = cluster
        self._certify = certify
        self._all: dict[TenantId, Tenancy] = {}
        self._rounds: dict[TenantId, Together] = {}
        self._brakes: defaultdict[TenantId, Brake] = defaultdict(Brake)
        """For walls that fall."""
        self._wrote: dict[TenantId, float] = {}
        """When (by the clock of the loop) a round last changed something."""
        self._pods: dict[ReplicaId, Standing] = {}
        self._bearings: dict[ReplicaId, Bearing] = {}
        self._hidden: set[ReplicaId] = set()
        self._certificates: dict[str, bytes] = {}
        self._slices = False
        self._said: dict[TenantId, dict[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon: dict[TenantId, asyncio.TimerHandle] = {}
        self._again: dict[TenantId, asyncio.TimerHandle] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._slices = await self._cluster.serves(SLICES)
        namespaces, known = await self.tenants.watched(), await self.tenants.known()
        pods = await self._cluster.watched(Pod)
        things: dict[Any, Watched[Any]] = {
            kind: await self._cluster.watched(kind) for kind in self._seen_everywhere()
        }
        reading = (self._read(self.tenancy(tenant)) for tenant in known)
        await side_by_side(pods.synced(), *(one.allowed() for one in things.values()), *reading)
        # An older role does not let skep watch these everywhere: until it may, deletions go unnoticed.
        unseen = [kind for kind, one in things.items() if not await one.allowed()]
        await side_by_side(*(self._look_in(self.tenancy(tenant), unseen) for tenant in known))
        self._stack.callback(pods.subscribe(self._pod))
        self._stack.callback(namespaces.subscribe(self._namespace))
        for one in things.values():
            self._take(one.all())
            self._stack.callback(one.subscribe(self._thing))
        for kind in unseen:
            self._look_after(asyncio.create_task(self._catch_up(kind, things[kind])))
        for tenant in self._all:
            self._poke(tenant)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rounds = list(self._rounds.values())
        self._rounds.clear()
        for timer in (*self._soon.values(), *self._again.values()):
            timer.cancel()
        await self._stack.aclose()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.rest() for one in rounds))

    def tenancy(self, tenant: TenantId) -> Tenancy:
        if tenant not in self._all:
            self._all[tenant] = Tenancy(self.tenants.of(tenant))
            self._rounds[tenant] = Together(lambda: self._bring(self._all[tenant]))
        return self._all[tenant]

    def every(self) -> list[Tenancy]:
        return list(self._all.values())

    async def brought(self, tenancy: Tenancy) -> None:
        """Return once the cluster has heard of what the record says now; look at `failed` then.

        Raises:
            SkepError: the namespace cannot be.
        """
        await self._rounds[tenancy.of.tenant].done()

    async def resolvable(self, one: ReplicaId, up: bool) -> None:
        """Whether its names resolve while its pod runs."""
        known = one in self._hidden
        (self._hidden.discard if up else self._hidden.add)(one)
        if known == up and (stands := self._pods.get(one)) is not None:
            tenancy = self._all.get(_tenant(stands.namespace))
            if tenancy is not None:  # otherwise it has no names, whatever is said of it
                await self.brought(tenancy)

    # -- hearing ------------------------------------------------------------------------------------

    def _pod(self, change: Change[Pod]) -> None:
        if (whose := replica(change.object)) is None:
            return
        bears, stands = self._note_bearing(whose, change), self._note_standing(whose, change)
        if bears or stands:
            namespace = (change.object.metadata and change.object.metadata.namespace) or ""
            self._poke(_tenant(namespace))

    def _note_bearing(self, whose: ReplicaId, change: Change[Pod]) -> bool:
        """Whether a policy is to name it now that is not, or the other way round.

        A pod that bears nothing is followed by another such one, which is to be named before it runs.
        """
        before, now = self._bearings.get(whose), bearing(change.object)
        if change.gone and before == now and now.networks:
            del self._bearings[whose]
        if change.gone or (change.object.metadata and change.object.metadata.deletionTimestamp):
            return False  # there may be a younger one
        self._bearings[whose] = now
        return before.networks != now.networks if before else not now.networks

    def _note_standing(self, whose: ReplicaId, change: Change[Pod]) -> bool:
        """Of two pods of a replica the one that runs counts, or the younger of them."""
        now = None if change.gone else standing(change.object)
        before = self._pods.get(whose)
        name = change.object.metadata.name if change.object.metadata else None
        if now == before or (now is None and before is not None and before.pod != name):
            return False
        if now is None:
            self._pods.pop(whose, None)
        else:
            self._pods[whose] = now
        return True

    def _namespace(self, change: Change[Namespace]) -> None:
        """With a namespace that somebody deletes everything goes that was in it: it is to be made again."""
        if change.object.metadata is None or not (change.gone or change.object.metadata.deletionTimestamp):
            return
        tenant = ((change.object.metadata.labels) or {}).get(mark("tenant"))
        if tenant in self._all and self._all[TenantId(tenant)].there:
            tenancy = self._all[TenantId(tenant)]
            tenancy.there.clear()
            tenancy.virtual.clear()
            tenancy.record.networks.clear()
            tenancy.record.published.clear()

    def _thing(self, change: Change[Any]) -> None:
        meta = change.object.metadata
        tenant, key = _tenant(meta.namespace), (type(change.object).__name__, meta.name)
        if not change.gone:
            return
        lost = tenant in self._all and self._all[tenant].lost(key, meta.uid)
        fallen = key[0] == "NetworkPolicy" and self.tenants.fallen(tenant, key[1])
        if lost or fallen:
            log.info("kubernetes.deleted", kind=key[0], name=key[1], namespace=meta.namespace)
            self.tenancy(tenant)
            now = asyncio.get_running_loop().time()
            self._poke(tenant, self._brakes[tenant].pause(now) if fallen else 0.0)

    async def _catch_up(self, kind: Any, one: Watched[Any]) -> None:
        """What became of a kind that skep did not see, as soon as it may."""
        await one.synced(None)
        there = {(meta.namespace, meta.name) for meta in (found.metadata for found in one.all())}
        for tenancy in self._all.values():
            for key in [key for key in tenancy.there if KINDS[key[0]] is kind]:
                if (tenancy.of.name, key[1]) not in there:
                    tenancy.forget(key)
        self._take(one.all())
        for tenant in await self.tenants.known() if kind is NetworkPolicy else ():
            for wall in WALLS:
                if (self.tenancy(tenant).of.name, wall) not in there:
                    self.tenants.fallen(tenant, wall)
        for tenant in self._all:
            self._poke(tenant)

    def _poke(self, tenant: TenantId, pause: float = 0.0) -> None:
        """Begin a round that nobody waits for, after the pause; news that come together are one round."""
        if tenant not in self._soon:
            loop = asyncio.get_running_loop()
            rested = self._wrote.get(tenant, 0.0) + self._rest(tenant)
            soon = loop.time() + max(_GATHER, pause)
            self._soon[tenant] = loop.call_at(max(soon, rested), self._begin, tenant)

    def _rest(self, tenant: TenantId) -> float:
        networks = self._all[tenant].record.networks.values() if tenant in self._all else ()
        return min(_LONGEST, _EACH * sum(len(network.ports) for network in networks))

    def _begin(self, tenant: TenantId) -> None:
        if tenant in self._rounds:
            self._look_after(self._rounds[tenant].begin())

    def _look_after(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("kubernetes.round-failed", error=str(error))

    # -- bringing -----------------------------------------------------------------------------------

    async def _bring(self, tenancy: Tenancy) -> None:
        """What fails as a whole is tried again: the news that it took along would be lost."""
        try:
            await self._round(tenancy)
        except SkepError as error:
            self._try_again(tenancy.of.tenant, [_again(error) or _GIVEN])
            raise
        self._look_at_failures(tenancy)

    async def _round(self, tenancy: Tenancy) -> None:
        tenant = tenancy.of.tenant
        async with self.tenants.turn(tenant):
            if soon := self._soon.pop(tenant, None):
                soon.cancel()  # this round takes all news along
            if not tenancy.record.empty:
                await self.tenants.ensure(tenant)
            elif not tenancy.there:
                if not await self.tenants.release(tenant):  # there are disks
                    await self.tenants.mend(tenant)
                return
            tenancy.failed.clear()
            await self._have_certificates(tenancy)
            for _ in range(_STEPS):
                new, gone = tenancy.changes(wanted(tenancy.of, tenancy.record, self._now(tenancy)))
                if not new and not gone:
                    break
                self._note_writing(tenant)  # what is heard from now on rests
                await self._carry_out(tenancy, new, gone)
                self._note_writing(tenant)
            if tenancy.record.empty and not tenancy.failed:
                await self.tenants.release(tenant)

    def _note_writing(self, tenant: TenantId) -> None:
        self._wrote[tenant] = asyncio.get_running_loop().time()

    def _look_at_failures(self, tenancy: Tenancy) -> None:
        """What may pass by itself is tried again; what is refused as it was before is not said again."""
        failed = {"/".join(key): error.message for key, error in tenancy.failed.items()}
        if failed and failed != self._said.get(tenancy.of.tenant):
            log.warning("kubernetes.refused", namespace=tenancy.of.name, failed=failed)
        self._said[tenancy.of.tenant] = failed
        self._try_again(tenancy.of.tenant, map(_again, tenancy.failed.values()))

    def _try_again(self, tenant: TenantId, waits: Iterable[float | None]) -> None:
        """After the shortest, if there is any."""
        if before := self._again.pop(tenant, None):
            before.cancel()
        if known := list(filter(None, waits)):
            self._again[tenant] = asyncio.get_running_loop().call_later(min(known), self._poke, tenant)

    def _now(self, tenancy: Tenancy) -> Circumstances:
        return Circumstances(
            pods=self._pods,
            bearings=self._bearings,
            hidden=self._hidden,
            virtual=tenancy.virtual,
            certificates=self._certificates,
            entrance=self.entrance,
            slices=self._slices,
        )

    async def _carry_out(self, tenancy: Tenancy, new: list[Manifest], gone: list[Key]) -> None:
        for wave in tenancy.waves(new):
            await asyncio.gather(*(self._apply(tenancy, one) for one in wave))
        await asyncio.gather(*(self._delete(tenancy, key) for key in gone))

    async def _apply(self, tenancy: Tenancy, manifest: Manifest) -> None:
        key, written = key_of(manifest), digest(manifest)
        try:
            found = await put(self._cluster, manifest)
        except SkepError as error:
            tenancy.failed[key] = error
            return
        tenancy.there[key], tenancy.uids[key] = written, found.metadata.uid
        if key[0] == "Service":
            tenancy.note_address(found.to_dict())

    async def _delete(self, tenancy: Tenancy, key: Key) -> None:
        kind, name = key
        tenancy.there.pop(key, None)
        try:
            await self._cluster.delete(KINDS[kind], name, tenancy.of.name)
        except SkepError as error:
            tenancy.failed[key], tenancy.there[key] = error, ""
            return
        if kind == "Service" and name.startswith("virtual-ip-"):
            tenancy.virtual.pop(ServiceId(name.removeprefix("virtual-ip-")), None)

    async def _have_certificates(self, tenancy: Tenancy) -> None:
        shown = {one.certificate for told in tenancy.record.endpoints.values() for one in told.endpoints}
        for one in shown - self._certificates.keys() - {""}:
            with suppress(NotFound):
                self._certificates[one] = await self._certify(one)

    def _seen_everywhere(self) -> tuple[Any, ...]:
        """Kinds that are watched; the others are only seen in the namespaces of tenants."""
        return (*_HEALED, EndpointSlice if self._slices else Endpoints, *self._entered())

    async def _read(self, tenancy: Tenancy) -> None:
        """What a process before this one left in the tenant's namespace, of what is not watched."""
        marked: list[tuple[type[Any], str]] = [(ConfigMap, mark(RECORD)), (Secret, mark("part"))]
        if Ingress not in self._seen_everywhere():
            marked.append((Ingress, mark("part")))
        ours = tenancy.of.labels()
        found: list[list[Any]] = await asyncio.gather(
            *(self._cluster.list(kind, tenancy.of.name, ours | {label: None}) for kind, label in marked),
        )
        self._take(one for every in found for one in every)

    async def _look_in(self, tenancy: Tenancy, unseen: Iterable[Any]) -> None:
        """The same, of what is watched elsewhere."""
        found = await asyncio.gather(*(self._cluster.seen(kind, tenancy.of.name) for kind in unseen))
        self._take(one for every in found for one in every or ())

    def _take(self, left: Iterable[Any]) -> None:
        """It is ours; a round sees whether it is as it is to be."""
        for one in left:
            labels, kind = one.metadata.labels or {}, _kind(one)
            tenancy = self._all.get(_tenant(one.metadata.namespace))
            if tenancy is None or not {mark("part"), mark(RECORD)} & labels.keys():
                continue
            tenancy.take(kind, one.metadata.name, one.to_dict())

    def _entered(self) -> list[type[Any]]:
        """What leads requests in."""
        if self.entrance is None:
            return []
        return [HttpRoute if self._has_gateway() else Ingress]

    def _has_gateway(self) -> bool:
        return self.entrance is not None and self.entrance.gateway is not None


def _again(error: SkepError) -> float | None:
    """None: it is refused whenever it is asked for."""
    if isinstance(error, Unavailable):
        return _AGAIN
    return _GIVEN if isinstance(error, Forbidden) else None


def _tenant(namespace: str | None) -> TenantId:
    """Whose a namespace of skep's is."""
    return TenantId((namespace or "").removeprefix("skep-"))


def _kind(one: Any) -> str:
    """As manifests have it."""
    return next(name for name, kind in KINDS.items() if isinstance(one, kind))

"""What tenants' networks are in the cluster is brought to what it is to be, for one tenant at a time.

Who changes something changes the record and waits for the next round, which takes along what others
changed meanwhile: a hundred plugs are a handful of requests.  Pods that come and go begin rounds by
themselves, and so does what somebody else deleted.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import structlog
from lightkube.resources.core_v1 import ConfigMap, Endpoints, Namespace, Pod, Secret, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import Ingress, NetworkPolicy

from skep.model.errors import Forbidden, SkepError, Unavailable
from skep.model.ids import ReplicaId, TenantId
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.client.patience import Brake
from skep.providers.kubernetes.client.side_by_side import side_by_side
from skep.providers.kubernetes.client.together import Together
from skep.providers.kubernetes.client.watching import Change, Watched
from skep.providers.kubernetes.network.entrances import Entrance
from skep.providers.kubernetes.network.heard import Heard
from skep.providers.kubernetes.network.leading import SLICES
from skep.providers.kubernetes.network.records import RECORD
from skep.providers.kubernetes.network.rounds import Certify, Rounds
from skep.providers.kubernetes.network.tenancy import KINDS, Failures, HttpRoute, Key, Tenancy
from skep.providers.kubernetes.network.wanted import Circumstances
from skep.providers.kubernetes.tenants.namespaces import WALLS
from skep.providers.kubernetes.tenants.tenants import Tenants

_HEALED = (Service, NetworkPolicy)
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
        self._all: dict[TenantId, Tenancy] = {}
        self._together: dict[TenantId, Together[Failures]] = {}
        self._brakes: defaultdict[TenantId, Brake] = defaultdict(Brake)
        """For walls that fall."""
        self._heard = heard = Heard()
        self._now = Circumstances(heard.standings, heard.bearings, heard.hidden, entrance=entrance)
        self._rounds = Rounds(cluster, tenants, certify, self._now)
        self._said: dict[TenantId, dict[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon: dict[TenantId, asyncio.TimerHandle] = {}
        self._again: dict[TenantId, asyncio.TimerHandle] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._now.slices = await self._cluster.serves(SLICES)
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
            self._tasks.add(task := asyncio.create_task(self._catch_up(kind, things[kind])))
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(_say_failure)
        for tenant in self._all:
            self._poke(tenant)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rounds = list(self._together.values())
        self._together.clear()
        for timer in (*self._soon.values(), *self._again.values()):
            timer.cancel()
        await self._stack.aclose()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *(one.rest() for one in rounds), return_exceptions=True)

    def tenancy(self, tenant: TenantId) -> Tenancy:
        if tenant not in self._all:
            self._all[tenant] = Tenancy(self.tenants.of(tenant))
            self._together[tenant] = Together(lambda: self._bring(self._all[tenant]))
        return self._all[tenant]

    def every(self) -> list[Tenancy]:
        return list(self._all.values())

    async def brought(self, tenancy: Tenancy, concerns: Callable[[Key], bool] = lambda _key: False) -> None:
        """Return once the cluster has heard of what the record says now.

        Raises:
            SkepError: the namespace cannot be, or something was refused that it `concerns`.
        """
        for key, error in (await self._together[tenancy.of.tenant].done()).items():
            if concerns(key):
                raise error

    async def resolvable(self, one: ReplicaId, up: bool) -> None:
        """Whether its names resolve while its pod runs."""
        if (stands := self._heard.show(one, up)) is not None:
            tenancy = self._all.get(_tenant(stands.namespace))
            if tenancy is not None:  # otherwise it has no names, whatever is said of it
                await self.brought(tenancy)

    def forget(self, replica: ReplicaId) -> None:
        """It was removed: none of its pods is followed by another."""
        self._heard.bearings.pop(replica, None)

    # -- hearing ------------------------------------------------------------------------------------

    def _pod(self, change: Change[Pod]) -> None:
        if self._heard.hear(change):
            namespace = (change.object.metadata and change.object.metadata.namespace) or ""
            self._poke(_tenant(namespace))

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
            soon = loop.time() + max(_GATHER, pause)
            self._soon[tenant] = loop.call_at(max(soon, self._rested(tenant)), self._begin, tenant)

    def _rested(self, tenant: TenantId) -> float:
        """When news have rested after the last round."""
        if (tenancy := self._all.get(tenant)) is None:
            return 0.0
        ports = sum(len(network.ports) for network in tenancy.record.networks.values())
        return tenancy.wrote + min(_LONGEST, _EACH * ports)

    def _begin(self, tenant: TenantId) -> None:
        if tenant in self._together:
            self._together[tenant].begin().add_done_callback(_say_failure)

    # -- bringing -----------------------------------------------------------------------------------

    async def _bring(self, tenancy: Tenancy) -> Failures:
        """What fails as a whole is tried again: the news that it took along would be lost."""
        try:
            async with self.tenants.turn(tenancy.of.tenant):
                if soon := self._soon.pop(tenancy.of.tenant, None):
                    soon.cancel()  # this round takes all news along
                failed = await self._rounds.run(tenancy)
        except SkepError as error:
            self._try_again(tenancy.of.tenant, [_again(error) or _GIVEN])
            raise
        self._look_at_failures(tenancy, failed)
        return failed

    def _look_at_failures(self, tenancy: Tenancy, failed: Failures) -> None:
        """What may pass by itself is tried again; what is refused as it was before is not said again."""
        now = {"/".join(key): error.message for key, error in failed.items()}
        if now and now != self._said.get(tenancy.of.tenant):
            log.warning("kubernetes.refused", namespace=tenancy.of.name, failed=now)
        self._said[tenancy.of.tenant] = now
        self._try_again(tenancy.of.tenant, map(_again, failed.values()))

    def _try_again(self, tenant: TenantId, waits: Iterable[float | None]) -> None:
        """After the shortest, if there is any."""
        if before := self._again.pop(tenant, None):
            before.cancel()
        if known := list(filter(None, waits)):
            self._again[tenant] = asyncio.get_running_loop().call_later(min(known), self._poke, tenant)

    def _seen_everywhere(self) -> tuple[Any, ...]:
        """Kinds that are watched; the others are only seen in the namespaces of tenants."""
        return (*_HEALED, EndpointSlice if self._now.slices else Endpoints, *self._entered())

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


def _say_failure(task: asyncio.Task[Any]) -> None:
    """Of what nobody waits for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("kubernetes.round-failed", error=str(error))


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

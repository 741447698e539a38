"""All carriers of the installation in a cluster, and which of them carries a container.

What is kept of containers is in the cluster itself, so whoever enters the carriers of a cluster knows them;
then they are told what the watches tell.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

import structlog
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod

from skep.model.errors import NotFound, SkepError, Unavailable
from skep.model.host import ContainerStatus
from skep.model.ids import ContainerId, ReplicaId, TenantId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.refusals import translated
from skep.providers.kubernetes.client.watching import Change, Watched
from skep.providers.kubernetes.pods import nodes
from skep.providers.kubernetes.pods.budgets import Budgets
from skep.providers.kubernetes.pods.carrier import Around, Carrier
from skep.providers.kubernetes.pods.ledger import Entry, Ledger, read
from skep.providers.kubernetes.pods.manifests import CARRIER
from skep.providers.kubernetes.pods.priorities import Priorities
from skep.providers.kubernetes.pods.seen import see
from skep.providers.kubernetes.pods.wondering import Wondering

_ANSWERS = 60.0
"""Seconds in which a cluster that was entered is heard of."""
_AGAIN = 1.0
_WORKLOADS: tuple[type[Any], ...] = (Deployment, StatefulSet)
_log = structlog.get_logger(__name__)


class Carriers:
    """`tell` is called with every status that is not as the one before; `machines`: its nodes.

    `guarded` is as of `Around`.
    """

    def __init__(
        self,
        cluster: Cluster,
        tell: Callable[[ContainerStatus, Entry], None],
        machines: Watched[Node] | None,
        guarded: Callable[[TenantId], Collection[ReplicaId]],
    ) -> None:
        self._cluster = cluster
        self._tell = tell
        self._nodes = machines
        self._around = Around(
            cluster=cluster, tell=self._told, spawn=self._spawn, silent=self._silent, guarded=guarded
        )
        self._all: dict[tuple[str, str], Carrier] = {}
        self._wondering = Wondering(cluster, self._all.values)
        self._budgets = Budgets(cluster, self._ledgers)
        self.priorities = Priorities(cluster, self._ledgers, self._spawn)
        self._where: dict[ContainerId, Carrier] = {}
        self._pods: Watched[Pod] | None = None
        self._known = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ends: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        self._spawn(self._wondering.forever())
        self._spawn(self._budgets.forever())
        if self._nodes is not None:
            self._ends.append(self._nodes.subscribe(self._node_heard))
        self._spawn(self._adopt())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(carrier.close() for carrier in self._all.values()))

    async def known(self) -> None:
        """Return once it is known what is there.  Raises Unavailable: the cluster does not answer."""
        try:
            async with asyncio.timeout(_ANSWERS):
                await self._known.wait()
        except TimeoutError:
            raise Unavailable(f"The cluster at {self._cluster.server} does not answer.") from None

    async def get(self, container: ContainerId) -> Carrier:
        """Raises NotFound; Unavailable: the cluster does not answer."""
        if found := await self.find(container):
            return found
        raise NotFound(f"This cluster has no container {container}.")

    @property
    def deaf(self) -> str:
        """Why nothing is heard of the cluster now; "" while all is well."""
        error = self._pods.failing if self._pods is not None else None
        return str(translated(error, "watch pods")) if error is not None else ""

    async def find(self, container: ContainerId) -> Carrier | None:
        """Raises Unavailable: the cluster does not answer."""
        await self.known()
        return self._where.get(container)

    def every(self) -> Iterator[tuple[ContainerId, Carrier]]:
        """With each container that is there."""
        return ((one, carrier) for one, carrier in self._where.items() if carrier.roster.has(one))

    def at(self, ledger: Ledger) -> Carrier:
        """The one in its place, or a new one made of it, which nobody knows until it is given a container."""
        return self._all.get((ledger.namespace, ledger.name)) or Carrier(ledger, self._around)

    def give(self, container: ContainerId, carrier: Carrier) -> Carrier:
        """Answers who carries it from now on: this one, or who has come into its place meanwhile."""
        carrier = self._all.setdefault(carrier.place, carrier)
        self._where[container] = carrier
        return carrier

    async def remove(self, container: ContainerId, carrier: Carrier) -> None:
        try:
            await carrier.remove(container)
        finally:
            if not carrier.roster.has(container) and self._where.get(container) is carrier:
                del self._where[container]
            if carrier.idle and self._all.get(carrier.place) is carrier:
                del self._all[carrier.place]
            self._budgets.changed()

    async def ask(self, container: ContainerId, carrier: Carrier) -> None:
        """What events say of it is known afterwards, if it can be had."""
        await self._wondering.ask(carrier, container)

    def wanted(self) -> None:
        """Other containers are wanted than before."""
        self._budgets.changed()

    # -- knowing ----------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """What an earlier process wrote down, then what is there; asked for until the cluster answers."""
        while True:
            try:
                await self._read_all()
                break
            except SkepError as error:
                _log.warning("cluster.not-read", error=str(error))
                await asyncio.sleep(_AGAIN)
        pods = self._pods = await self._cluster.watched(Pod)
        self._ends.append(pods.subscribe(self._pod_heard))
        workloads: list[Watched[Any]] = [await self._cluster.watched(kind) for kind in _WORKLOADS]
        self._ends.extend(one.subscribe(self._workload_heard) for one in workloads)
        while not self._known.is_set():
            with contextlib.suppress(SkepError):
                await asyncio.gather(pods.synced(), *(one.synced() for one in workloads))
                self._known.set()
        for carrier in list(self._all.values()):
            carrier.settle()
        self._budgets.changed()
        await self.priorities.mend()

    async def _read_all(self) -> None:
        known = (await (await self._cluster.watched(Namespace)).synced()).all()
        spaces = [(one.metadata and one.metadata.name) or "" for one in known]
        ours = self._cluster.selector | {CARRIER: None}
        for found in await asyncio.gather(*(self._cluster.list(ConfigMap, one, ours) for one in spaces)):
            for one in found:
                self._read(one)

    def _read(self, found: ConfigMap) -> None:
        meta: Any = found.metadata
        if CARRIER not in (meta.labels or {}) or (meta.namespace, meta.name) in self._all:
            return
        try:
            ledger = read(found.data or {})
        except ValueError as error:
            _log.warning("cluster.ledger-unreadable", name=meta.name, error=str(error))
            return
        carrier = Carrier(ledger, self._around, meta.uid)
        self._all[meta.namespace, meta.name] = carrier
        self._where.update(dict.fromkeys(ledger.entries, carrier))

    def _pod_heard(self, change: Change[Pod]) -> None:
        pod = see(change.object)
        if carrier := self._all.get((pod.namespace, pod.carrier)):
            carrier.heard(pod, gone=change.gone)

    def _workload_heard(self, change: Change[Any]) -> None:
        meta = change.object.metadata
        if carrier := self._all.get((meta.namespace, meta.name)):
            carrier.workload_heard(change.object, gone=change.gone)

    def _node_heard(self, change: Change[Node]) -> None:
        before, now = nodes.silent(change.before), nodes.silent(None if change.gone else change.object)
        if before != now and (meta := change.object.metadata) is not None:
            for carrier in list(self._all.values()):
                carrier.node_heard(meta.name or "")

    def _silent(self, node: str) -> float | None:
        return nodes.silent(self._nodes.get(node)) if self._nodes is not None else None

    def _told(self, status: ContainerStatus, entry: Entry) -> None:
        self._tell(status, entry)
        self._wondering.notice(status)

    def _ledgers(self) -> list[Ledger]:
        return [carrier.roster.ledger for carrier in self._all.values()]

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

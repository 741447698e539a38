"""The containers of one Deployment, StatefulSet or bare pod, kept as they are wanted.

Orders change what is wanted (`Roster`); a round (`Rounds`) then makes the cluster so.  Whatever the watches
tell may begin a round, too, so what somebody deleted or changed is mended by the same code that made it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from lightkube.resources.apps_v1 import Deployment, StatefulSet
from msgspec.structs import replace

from skep.model.errors import Unavailable
from skep.model.host import ContainerStatus
from skep.model.ids import ContainerId, ReplicaId, Seconds, TenantId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods import statuses, words
from skep.providers.kubernetes.pods.ledger import Entry, Ledger
from skep.providers.kubernetes.pods.manifests import Manifest
from skep.providers.kubernetes.pods.notices import Notices
from skep.providers.kubernetes.pods.objects import Objects, Supply
from skep.providers.kubernetes.pods.roster import Roster, Silent
from skep.providers.kubernetes.pods.rounds import Rounds
from skep.providers.kubernetes.pods.seen import SeenPod
from skep.providers.kubernetes.pods.timers import Timers
from skep.providers.kubernetes.pods.troubles import Trouble

_AFTER_GRACE = 120.0
"""Seconds: kubelets of busy nodes take their time until they say that a pod has ended."""


@dataclass(frozen=True)
class Around:
    """What every carrier of a cluster shares."""

    cluster: Cluster
    tell: Callable[[ContainerStatus, Entry], None]
    """Called with every status that is not as the one before."""
    spawn: Callable[[Coroutine[Any, Any, Any]], object]
    silent: Silent = lambda _node: None
    guarded: Callable[[TenantId], Collection[ReplicaId]] = lambda _tenant: ()
    """Those replicas of a tenant that rules of groups speak of."""


class Carrier:
    """Made of a ledger that is in the cluster (`uid`), or is going to be."""

    def __init__(self, ledger: Ledger, around: Around, uid: str = "") -> None:
        self.roster = Roster(ledger, time.time, around.silent)
        """What is known: for others to read."""
        self._timers = Timers()
        self._objects = Objects(around.cluster, ledger if uid else None, uid)
        self._notices = Notices(self.roster, self._timers, around.tell)
        self._rounds = Rounds(self.roster, self._objects, self._notices.look, around.spawn, around.guarded)
        self._leaving: dict[ContainerId, Entry] = {}
        """Removed, and their pods have not ended yet."""

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.roster.ledger.namespace, self.roster.ledger.name

    @property
    def idle(self) -> bool:
        """Whether it has nothing, and nobody waits for the end of anything."""
        return not self.roster.ledger.entries and not self._leaving

    def lacks(self, shape: str) -> bool:
        """Whether what its pods read (environment, files) is to be supplied before they start."""
        return self._objects.supplied != shape

    async def until(self, container: ContainerId, holds: Callable[[], bool]) -> None:
        """Return once it holds, or the container is removed; looked at when something of it changes."""
        await self._notices.until(container, holds)

    def inspect(self, container: ContainerId) -> ContainerStatus:
        """As known, with what its end waits for; also of one that is being removed.  Raises NotFound."""
        entry = self._leaving.get(container)
        pods = (one for one in self.roster.pods.values() if one.container == container)
        ending = next((one for one in pods if one.deleting), None)
        status = statuses.status(entry, ending, time.time()) if entry else self.roster.status(container)
        if ending is None or self.roster.pod(container) not in (None, ending):
            return status
        name = (entry or self.roster.entry(container)).name
        return replace(status, error=self.roster.silence(ending.name) or words.ending(name, ending))

    # -- orders -----------------------------------------------------------------------------------

    async def start(self, entry: Entry, template: Manifest, shape: str, supply: Supply | None) -> None:
        """Raises Conflict: its place is taken."""
        self.roster.start(entry, template, shape)
        if supply is not None:
            self._objects.supply(supply)
        self._timers.forget(entry.id)
        await self._look_and_work(entry.id)

    async def stop(self, container: ContainerId, seconds: float | None) -> None:
        name, grace = self.roster.entry(container).name, self.roster.stop(container, seconds)
        self._timers.forget(container)
        await self._look_and_work(container)
        async with self._ending(container, name, grace):
            await self.until(container, lambda: self.roster.ended(container))
        if self.roster.has(container):
            await self._look_and_work(container)

    async def restart(self, container: ContainerId) -> None:
        pod = self.roster.pod(container)
        self._timers.forget(container)
        self.roster.restart(container)
        if pod is not None and not self.roster.own_pods:
            await self._rounds.end(pod.name)
        await self._rounds.done()
        await self.until(container, lambda: self.roster.begun_anew(container, pod))

    async def remove(self, container: ContainerId) -> None:
        """Returns once its pod has ended; one whose node is lost is not waited for."""
        pod, entry = self.roster.pod(container), self.roster.entry(container)
        self._timers.forget(container)
        self.roster.remove(container)
        self._notices.removed(container)
        self._leaving[container] = entry
        try:
            await self._rounds.done()
            if pod is not None:
                async with self._ending(container, entry.name, 0):
                    await self._notices.pod_ended(pod.name)
        finally:
            self._leaving.pop(container, None)

    def settle(self) -> None:
        """Look at everything anew: what an earlier process left, or what was not told."""
        for container in list(self.roster.ledger.entries):
            self.roster.missing(container)
            self._notices.look(container)
            if self.roster.entry(container).again:
                self._again_after(container, Seconds(0.0))
        self._rounds.kick()

    async def close(self) -> None:
        self._timers.close()
        await self._rounds.rest()

    # -- what is heard ----------------------------------------------------------------------------

    def heard(self, pod: SeenPod, *, gone: bool) -> None:
        """A pod of the carrier is as told, or is no longer there."""
        news = self.roster.heard(pod, gone=gone)
        if news.container is not None:
            if news.again is not None:
                self._again_after(news.container, news.again)
            self._notices.look(news.container)
        self._notices.pod_changed(pod.name)
        if news.waited:
            self._rounds.begin()
        elif news.work:
            self._rounds.kick()

    def node_heard(self, node: str) -> None:
        """It does not answer any more, or does again."""
        if pods := [one.name for one in self.roster.pods.values() if one.node == node]:
            for container in self.roster.ledger.entries:
                self._notices.look(container)
            for pod in pods:
                self._notices.pod_changed(pod)

    def explain(self, container: ContainerId, trouble: Trouble) -> None:
        """What else was found out of one that waits, or is not well."""
        if self.roster.has(container):
            self.roster.explain(container, trouble)
            self._notices.look(container)

    def workload_heard(self, found: Deployment | StatefulSet, *, gone: bool) -> None:
        """The object that carries them changed; what somebody else changed is made undone."""
        if self.roster.ledger.entries and self._objects.differ(found, gone=gone):
            self._rounds.kick()

    def _again_after(self, container: ContainerId, seconds: Seconds) -> None:
        self._timers.set(container, "again", seconds, lambda: self._again(container))

    def _again(self, container: ContainerId) -> None:
        if self.roster.again(container):
            self._notices.look(container)
            self._rounds.kick()

    async def _look_and_work(self, container: ContainerId) -> None:
        self._notices.look(container)
        await self._rounds.done()

    @contextlib.asynccontextmanager
    async def _ending(self, container: ContainerId, name: str, seconds: float) -> AsyncIterator[None]:
        """Raises Unavailable: the pod does not end, long after its grace."""
        try:
            async with asyncio.timeout(seconds + _AFTER_GRACE):
                yield
        except TimeoutError:
            pods = [one.name for one in self.roster.pods.values() if one.container == container]
            silences = filter(None, map(self.roster.silence, pods))
            why = next(silences, "Its node does not say that it has.")
            raise Unavailable(f"{name} does not end. {why}") from None

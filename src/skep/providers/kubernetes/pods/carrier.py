"""The containers of one Deployment, StatefulSet or bare pod, kept as they are wanted.

Orders change what is wanted; a round then makes the cluster so.  Orders that come while a round is under way
share the next one: a hundred starts are a few requests.  Whatever the watches tell may begin a round, too, so
what somebody deleted or changed is mended by the same code that made it.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from lightkube.resources.apps_v1 import Deployment, StatefulSet

from skep.model.errors import Conflict, NotFound, Unavailable
from skep.model.host import ContainerStatus
from skep.model.ids import ContainerId, Seconds
from skep.model.restarts import History, decide
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.patience import delay
from skep.providers.kubernetes.client.together import Together
from skep.providers.kubernetes.pods import manifests, plans, statuses
from skep.providers.kubernetes.pods.ledger import Entry, Exit, Ledger
from skep.providers.kubernetes.pods.manifests import MEMBER, Manifest
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.objects import Objects, Supply
from skep.providers.kubernetes.pods.seen import Ended, SeenPod

_KILLED = 137
_AFTER_GRACE = 120.0
"""Seconds: kubelets of busy nodes take their time until they say that a pod has ended."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Around:
    """What every carrier of a cluster shares."""

    cluster: Cluster
    tell: Callable[[ContainerStatus, Entry], None]
    """Called with every status that is not as the one before."""
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class Carrier:
    """Made of a ledger that is in the cluster (`uid`), or is going to be."""

    def __init__(self, ledger: Ledger, around: Around, uid: str = "") -> None:
        self.ledger = ledger
        self.pods: dict[str, SeenPod] = {}
        self._around = around
        self._objects = Objects(around.cluster, ledger if uid else None, uid)
        self._binding: dict[ContainerId, str] = {}
        self._graces: dict[ContainerId, float] = {}
        self._statuses: dict[ContainerId, ContainerStatus] = {}
        self._timers: dict[tuple[ContainerId, str], asyncio.TimerHandle] = {}
        self._waiting: dict[ContainerId, set[asyncio.Future[None]]] = {}
        self._round = Together(self._work)
        self._failures = 0
        self._removals = 0
        self._named = _log.bind(carrier=ledger.name, namespace=ledger.namespace)

    # -- what is asked ----------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether it has nothing, and nobody waits for the end of anything."""
        return not self.ledger.entries and not self._removals

    def has(self, container: ContainerId) -> bool:
        return container in self.ledger.entries

    def entry(self, container: ContainerId) -> Entry:
        """Raises NotFound: it was removed."""
        if found := self.ledger.entries.get(container):
            return found
        raise NotFound(f"Container {container} was removed.")

    def pod(self, container: ContainerId) -> SeenPod | None:
        return self.pods.get(self._binding.get(container, ""))

    def begun(self, container: ContainerId) -> bool:
        """Whether the start that was ordered last has led to anything."""
        pod = self.pod(container)
        if pod is None:
            return False
        if self.ledger.kind is CarrierKind.POD and pod.attempt < self.entry(container).attempt:
            return False
        return pod.running or pod.over or (pod.ended or pod.ended_before) is not None

    def status(self, container: ContainerId) -> ContainerStatus:
        return statuses.status(self.entry(container), self.pod(container), time.time())

    def lacks(self, shape: str) -> bool:
        """Whether what its pods read (environment, files) is to be supplied before they start."""
        return self._objects.supplied != shape

    async def until(self, container: ContainerId, holds: Callable[[], bool]) -> None:
        """Return once it holds, or the container is removed; looked at when something of it changes."""
        while self.has(container) and not holds():
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(container, set()).add(waiting)
            try:
                await waiting
            finally:
                self._waiting.get(container, set()).discard(waiting)

    # -- orders -----------------------------------------------------------------------------------

    async def start(self, entry: Entry, template: Manifest, shape: str, supply: Supply | None) -> None:
        """Raises Conflict: its place is taken."""
        before = self.ledger.entries.get(entry.id)
        if self.ledger.kind is CarrierKind.STATEFUL_SET:
            self._must_be_free(entry)
        if before is not None:
            ended = before.exit is not None or before.begun is not None
            entry = msgspec.structs.replace(
                entry,
                attempt=before.attempt + (1 if ended else 0),
                restarts=before.restarts,
                begun=before.begun,
            )
        if supply is not None:
            self._objects.supply(supply)
        self._forget_timers(entry.id)
        if self.ledger.kind is not CarrierKind.POD:
            self._binding.pop(entry.id, None)  # a pod that is about to go
        if shape != self.ledger.shape or not self.ledger.entries:
            # What runs keeps its template: another version of skep might write the same one differently.
            self.ledger = msgspec.structs.replace(self.ledger, template=template, shape=shape)
        self.ledger = self.ledger.with_entry(entry)
        self._look(entry.id)
        await self._round.done()

    async def stop(self, container: ContainerId, seconds: float | None) -> None:
        entry = self.entry(container)
        self._graces[container] = entry.grace if seconds is None else seconds
        self._forget_timers(container)
        self._keep(msgspec.structs.replace(entry, wanted=False, again=False))
        if self.pod(container) is None and entry.exit is None:
            self._keep(
                msgspec.structs.replace(self.entry(container), exit=Exit(code=_KILLED, at=time.time()))
            )
        self._look(container)
        await self._round.done()
        async with self._ending(entry.name, self._graces[container]):
            await self.until(container, lambda: self._gone(container))
        if self.has(container):
            self._look(container)
            await self._round.done()

    async def restart(self, container: ContainerId) -> None:
        entry, pod = self.entry(container), self.pod(container)
        self._forget_timers(container)
        fresh = msgspec.structs.replace(entry, wanted=True, exit=None, again=False, history=History())
        own = self.ledger.kind is CarrierKind.POD
        if own or pod is None:
            fresh = msgspec.structs.replace(fresh, attempt=entry.attempt + 1, restarts=entry.restarts + 1)
        self._graces[container] = entry.grace
        self._keep(fresh)
        if not own and pod is not None:
            await self._end(pod.name)
        await self._round.done()
        await self.until(container, lambda: self._begun_anew(container, pod))

    async def remove(self, container: ContainerId) -> None:
        """Returns once its pod has ended; one whose node is lost is not waited for."""
        pod, name = self.pod(container), self.entry(container).name
        self._forget_timers(container)
        self._graces[container] = 0
        self.ledger = self.ledger.without(container)
        self._statuses.pop(container, None)
        self._wake(container)
        self._removals += 1
        try:
            await self._round.done()
            if pod is not None and pod.reason != "NodeLost":
                async with self._ending(name, 0):
                    await self._pod_gone(pod.name)
        finally:
            self._removals -= 1

    def settle(self) -> None:
        """Look at everything anew: what an earlier process left, or what was not told."""
        for container in list(self.ledger.entries):
            self._missing(container)
            self._look(container)
            if self.ledger.entries[container].again:
                self._again_after(container, Seconds(0.0))
        self.kick()

    def kick(self) -> None:
        """Begin a round that nobody waits for; one that fails is tried again."""
        self._around.spawn(self._try())

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    # -- what is heard ----------------------------------------------------------------------------

    def heard(self, pod: SeenPod, *, gone: bool) -> None:
        """A pod of the carrier is as told, or is no longer there."""
        before = self.pods.pop(pod.name, None)
        if not gone:
            self.pods[pod.name] = pod
        container = pod.container or self._bound_as(pod.name)
        if container is None or not self.has(container):
            self._wake_all_of(pod.name)
            if pod.container is None or not gone:
                self.kick()
            return
        lost = gone or pod.deleting or pod.over
        if lost and self.ledger.kind is not CarrierKind.POD and self.entry(container).wanted:
            self._lose(container, before or pod, gone=gone)
        elif not gone:
            self._hold(container, pod)
        elif self._binding.get(container) == pod.name:
            self._ended_unseen(container, before or pod)
        self._judge(container, pod, gone=gone)
        self._look(container)
        self._wake_all_of(pod.name)
        if gone or pod.over or not self.entry(container).wanted:
            self.kick()

    def workload_heard(self, found: Deployment | StatefulSet, *, gone: bool) -> None:
        """The object that carries them changed; what somebody else changed is made undone."""
        if self.ledger.entries and self._objects.differ(found, gone=gone):
            self.kick()

    def _hold(self, container: ContainerId, pod: SeenPod) -> None:
        """The container is this pod, unless there is a later one."""
        other = self.pods.get(self._binding.get(container, ""))
        if other is None or other.name == pod.name or other.attempt <= pod.attempt:
            self._binding[container] = pod.name
        entry = self.entry(container)
        if pod.running and entry.begun is None:
            self.ledger = self.ledger.with_entry(msgspec.structs.replace(entry, begun=pod.since))
            if self.ledger.kind is CarrierKind.POD:
                self.kick()

    def _lose(self, container: ContainerId, pod: SeenPod, *, gone: bool) -> None:
        """A controller replaces the pod: the container goes on in the next one."""
        if self._binding.get(container) != pod.name:
            return
        del self._binding[container]
        entry = self.entry(container)
        self._keep(msgspec.structs.replace(entry, restarts=entry.restarts + pod.restarts + 1))
        self.kick()

    def _ended_unseen(self, container: ContainerId, pod: SeenPod) -> None:
        del self._binding[container]
        entry = self.entry(container)
        if entry.exit is not None or pod.attempt < entry.attempt:
            return
        if not entry.wanted:
            ended = pod.ended or Ended(code=_KILLED, at=time.time())
            self._keep(msgspec.structs.replace(entry, exit=_exit(ended)))
        else:
            told = Exit(error="Its pod was deleted in the cluster.", at=time.time())
            self._keep(msgspec.structs.replace(entry, exit=told))

    def _judge(self, container: ContainerId, pod: SeenPod, *, gone: bool) -> None:
        """What follows the end of a pod that nobody else starts again."""
        entry = self.entry(container)
        if entry.exit is not None or gone or not (pod.over or pod.ended):
            return
        if not entry.wanted:
            self._keep(msgspec.structs.replace(entry, exit=_exit(pod.ended or Ended(code=_KILLED))))
        elif self.ledger.kind is CarrierKind.POD and pod.attempt >= entry.attempt:
            self._judge_end(entry, pod)

    def _judge_end(self, entry: Entry, pod: SeenPod) -> None:
        ended = pod.ended or Ended(code=_KILLED, message=pod.message, at=time.time())
        ran_for = Seconds((ended.at or 0.0) - (ended.started or ended.at or 0.0))
        again = decide(entry.restart, ended.code, ran_for, entry.history)
        changed = msgspec.structs.replace(entry, exit=_exit(ended, pod), again=again is not None)
        if again is not None:
            changed = msgspec.structs.replace(changed, history=again.history)
            self._again_after(entry.id, again.after)
        self._keep(changed)
        self.kick()

    def _missing(self, container: ContainerId) -> None:
        """An earlier process saw it run; nobody saw its end."""
        entry = self.ledger.entries[container]
        alone = self.ledger.kind is CarrierKind.POD and entry.begun is not None
        if entry.wanted and entry.exit is None and alone and self.pod(container) is None:
            told = Exit(error="Its pod was deleted in the cluster.", at=time.time())
            self._keep(msgspec.structs.replace(entry, exit=told))

    def _again_after(self, container: ContainerId, seconds: Seconds) -> None:
        self._timer(container, "again", seconds, lambda: self._again(container))

    def _again(self, container: ContainerId) -> None:
        entry = self.ledger.entries.get(container)
        if entry is None or not entry.wanted or not entry.again:
            return
        attempts = {"attempt": entry.attempt + 1, "restarts": entry.restarts + 1}
        self._keep(msgspec.structs.replace(entry, exit=None, again=False, **attempts))
        self._look(container)
        self.kick()

    # -- rounds -----------------------------------------------------------------------------------

    async def _try(self) -> None:
        try:
            await self._round.done()
            self._failures = 0
        except Exception as error:
            pause = delay(self._failures, error, random.random(), time.time())  # noqa: S311 - no secret
            self._failures += 1
            self._named.warning("cluster.round-failed", error=str(error), again_in=round(pause, 1))
            asyncio.get_running_loop().call_later(pause, self.kick)

    async def _work(self) -> None:
        ledger = self.ledger
        if not ledger.entries:
            await self._clear()
            return
        await self._objects.write(ledger)
        todo = plans.work(ledger, list(self.pods.values()), self._binding)
        await _all(self._leave(name) for name in todo.leave)
        if todo.workload and await self._objects.apply(ledger):
            self.kick()
        await _all(
            [
                *(self._end(name) for name in todo.end),
                *(self._objects.make(ledger, entry) for entry in todo.make),
                *(self._bind(name, entry) for name, entry in todo.bind.items()),
            ]
        )

    async def _clear(self) -> None:
        """Nothing of it is to be there any more."""
        await self._objects.clear_workload(self.ledger)
        await _all(self._end(name) for name, pod in self.pods.items() if not pod.deleting)
        await self._objects.clear(self.ledger)

    async def _leave(self, name: str) -> None:
        await self._label(name, {MEMBER: None})

    async def _bind(self, name: str, entry: Entry) -> None:
        self._binding[entry.id] = name
        try:
            await self._label(name, manifests.bound(entry))
        except BaseException:
            self._binding.pop(entry.id, None)
            raise
        self._look(entry.id)

    async def _label(self, name: str, labels: dict[str, Any]) -> None:
        """A pod that is gone needs none."""
        if not await self._objects.label(self.ledger, name, labels):
            self.pods.pop(name, None)
            self._drop(name)

    async def _end(self, name: str) -> None:
        container = (pod := self.pods.get(name)) and (pod.container or self._bound_as(name))
        seconds = self._graces.get(container, 0.0) if container else 0.0
        await self._objects.end(self.ledger, name, seconds)

    # -- small things -----------------------------------------------------------------------------

    def _must_be_free(self, entry: Entry) -> None:
        for other in self.ledger.wanted:
            if other.id != entry.id:
                raise Conflict(f"{entry.name} runs already, as another container: stop that first.")

    def _keep(self, entry: Entry) -> None:
        if self.has(entry.id):
            self.ledger = self.ledger.with_entry(entry)

    def _look(self, container: ContainerId) -> None:
        """Tell whoever is to know what is new of it."""
        entry = self.ledger.entries.get(container)
        if entry is None:
            return
        pod, now = self.pod(container), time.time()
        found = statuses.status(entry, pod, now)
        if (unwell := statuses.unwell_at(entry, pod)) is not None and unwell > now:
            self._timer(container, "unwell", unwell - now + 0.01, lambda: self._look(container))
        if self._statuses.get(container) != found:
            self._statuses[container] = found
            self._around.tell(found, entry)
        self._wake(container)

    def _timer(self, container: ContainerId, what: str, seconds: float, call: Callable[[], None]) -> None:
        if found := self._timers.pop((container, what), None):
            found.cancel()
        self._timers[container, what] = asyncio.get_running_loop().call_later(seconds, call)

    def _forget_timers(self, container: ContainerId) -> None:
        for what in ("again", "unwell"):
            if found := self._timers.pop((container, what), None):
                found.cancel()

    def _gone(self, container: ContainerId) -> bool:
        pod = self.pod(container)
        return pod is None or pod.over or pod.ended is not None or pod.reason == "NodeLost"

    def _begun_anew(self, container: ContainerId, before: SeenPod | None) -> bool:
        pod = self.pod(container)
        another = pod is not None and (before is None or pod.uid != before.uid)
        return another and self.begun(container)

    @staticmethod
    @contextlib.asynccontextmanager
    async def _ending(name: str, seconds: float) -> AsyncIterator[None]:
        """Raises Unavailable: the pod does not end, long after its grace."""
        try:
            async with asyncio.timeout(seconds + _AFTER_GRACE):
                yield
        except TimeoutError:
            raise Unavailable(f"{name} does not end: its node does not say that it has.") from None

    async def _pod_gone(self, name: str) -> None:
        while name in self.pods and self.pods[name].reason != "NodeLost":
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(ContainerId(name), set()).add(waiting)
            await waiting

    def _bound_as(self, name: str) -> ContainerId | None:
        return next((container for container, pod in self._binding.items() if pod == name), None)

    def _drop(self, name: str) -> None:
        if container := self._bound_as(name):
            del self._binding[container]
            self._look(container)

    def _wake(self, container: ContainerId) -> None:
        for waiting in self._waiting.pop(container, ()):
            if not waiting.done():
                waiting.set_result(None)

    def _wake_all_of(self, name: str) -> None:
        """Those who wait for the pod itself."""
        self._wake(ContainerId(name))


def _exit(ended: Ended, pod: SeenPod | None = None) -> Exit:
    error = pod.message if pod is not None and pod.reason else ""
    return Exit(code=ended.code, oom=ended.reason == "OOMKilled", error=error, at=ended.at or time.time())


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """All at the same time; the first failure is told once all have ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result

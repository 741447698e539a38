"""Rounds: each makes the cluster as the roster of a carrier says.

Orders that come while a round is under way share the next one: a hundred starts are a few requests.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any

import structlog

from skep.model.errors import Forbidden, NotFound
from skep.model.ids import ContainerId, ReplicaId, TenantId
from skep.providers.kubernetes.client.patience import delay
from skep.providers.kubernetes.client.together import Together
from skep.providers.kubernetes.pods import manifests, plans
from skep.providers.kubernetes.pods.manifests import CONTAINER, MEMBER
from skep.providers.kubernetes.pods.objects import Objects
from skep.providers.kubernetes.pods.roster import Roster

_WHOLE = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two looks whether there is a namespace, and skep has its rights there."""
_GATHER = 0.05
"""Seconds in which news come together, which nobody waits for."""
_LOOK, _LOOKS = 0.02, 50
"""Seconds between two looks whether a cluster ends the pods of a Deployment that is to have none, and how
often that is looked at."""
_log = structlog.get_logger(__name__)


class Rounds:
    """`changed` hears of containers that have got a pod, or lost it; `spawn` looks after tasks.

    `guarded`: those replicas of a tenant that rules of groups speak of.
    """

    def __init__(
        self,
        roster: Roster,
        objects: Objects,
        changed: Callable[[ContainerId], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
        guarded: Callable[[TenantId], Collection[ReplicaId]],
    ) -> None:
        self._roster = roster
        self._objects = objects
        self._changed = changed
        self._spawn = spawn
        self._guarded = guarded
        self._round = Together(self._work)
        self._left = False
        self._labelled: set[str] = set()
        """Pods that were told whose they are, whether they have said so or not."""
        self._failures = 0
        self._again = False
        """Whether what failed is about to be tried again."""
        self._kicked = False

    async def done(self) -> None:
        """Return once a round is done that began after this call.  Raises what it raises.

        A namespace that somebody deleted is made again by who keeps networks: that is waited for.
        """
        for pause in _WHOLE:
            try:
                await self._round.done()
            except (Forbidden, NotFound):
                await asyncio.sleep(pause)
            else:
                return
        await self._round.done()

    async def rest(self) -> None:
        """Nothing begins any more; what is under way is finished, if it does not take long."""
        self._left = True
        await self._round.rest()

    def begin(self) -> None:
        """At once; one that fails is tried again."""
        self._spawn(self._try())

    def kick(self) -> None:
        """Begin a round that nobody waits for; one that fails is tried again.  Many kicks are one."""
        if not self._kicked and not self._left:
            self._kicked = True
            self._spawn(self._soon())

    async def _soon(self) -> None:
        await asyncio.sleep(_GATHER)
        self._kicked = False
        await self._try()

    async def end(self, pod: str) -> None:
        await self._objects.end(self._roster.ledger, pod, self._roster.grace(pod))

    async def _try(self) -> None:
        """Many may have waited for one round that failed: it is tried again once for all of them."""
        try:
            await self._round.done()
            self._failures = 0
        except Exception as error:
            if self._again or self._left:
                return
            pause = delay(self._failures, error, random.random(), time.time())  # noqa: S311 - no secret
            self._again = True
            self._failures += 1
            where = {"carrier": self._roster.ledger.name, "namespace": self._roster.ledger.namespace}
            _log.warning("cluster.round-failed", error=str(error), again_in=round(pause, 1), **where)
            asyncio.get_running_loop().call_later(pause, self._try_again)

    def _try_again(self) -> None:
        self._again = False
        self.kick()

    async def _work(self) -> None:
        ledger = self._roster.ledger
        if not ledger.entries:
            await self._clear()
            return
        await self._objects.write(ledger)
        self._labelled &= {name for name, pod in self._roster.pods.items() if not pod.labelled}
        todo = plans.work(ledger, list(self._roster.pods.values()), self._roster.binding, self._named())
        for pod, entry in todo.bind.items():
            self._roster.bind(pod, entry.id)
            self._changed(entry.id)
        # Who no longer counts bears its name then: another process must not take it for a free one.
        await _all(self._label(pod, {MEMBER: None, CONTAINER: whose}) for pod, whose in todo.leave.items())
        if todo.workload and await self._objects.apply(ledger):
            self.kick()
        await self._going(todo.all_go)
        await _all(
            [
                *(self.end(pod) for pod in todo.end),
                *(self._objects.make(ledger, entry) for entry in todo.make),
                *(
                    self._label(pod, manifests.bound(entry))
                    for pod, entry in todo.label.items()
                    if pod not in self._labelled
                ),
            ]
        )

    async def _going(self, pods: Collection[str]) -> None:
        """Return once they are told to end, or nobody does so."""
        for _ in range(_LOOKS):
            if all(self._roster.pods[name].deleting for name in pods if name in self._roster.pods):
                return
            await asyncio.sleep(_LOOK)

    async def _clear(self) -> None:
        """Nothing of it is to be there any more."""
        ledger = self._roster.ledger
        await self._objects.clear_workload(ledger)
        await _all(self.end(name) for name, pod in self._roster.pods.items() if not pod.deleting)
        await self._objects.clear(ledger)

    async def _label(self, pod: str, labels: dict[str, Any]) -> None:
        """A pod that is gone needs none."""
        if await self._objects.label(self._roster.ledger, pod, labels):
            self._labelled.add(pod)
        elif container := self._roster.gone(pod):
            self._changed(container)
            self.kick()

    def _named(self) -> Collection[ReplicaId]:
        """Those that policies name: their pods must bear their names before they run.

        All that have ports, where an older version of skep made the template, without its networks.
        """
        ledger = self._roster.ledger
        wired = {entry.replica for entry in ledger.wanted if entry.ports}
        marked = ledger.template["metadata"].get("labels")
        return wired.intersection(self._guarded(ledger.tenant)) if marked else wired


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """All at the same time; the first failure is told once all have ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result

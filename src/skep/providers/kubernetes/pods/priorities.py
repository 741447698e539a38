"""PriorityClasses: one for each priority of skep's but the usual one, made when it is first asked for.

A pod that names a class which is not there is refused, so one that somebody deletes is made again.  Nothing
that a tenant writes leads to the classes of the system, and the quotas of namespaces refuse them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog
from lightkube.resources.scheduling_v1 import PriorityClass

from skep.model.errors import SkepError
from skep.model.placement import Priority
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.watching import Change, Watched
from skep.providers.kubernetes.pods.ledger import Ledger
from skep.providers.kubernetes.pods.manifests import Manifest

_VALUES = {Priority.LOW: -10, Priority.HIGH: 1000}
"""What names no class has 0 unless the cluster says otherwise.  Below -10 nobody would add nodes for a pod:
https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md (expendable pods)."""
_log = structlog.get_logger(__name__)


def names(installation: str) -> dict[Priority, str]:
    """Classes are the whole cluster's, and several skeps may share one."""
    return {one: f"skep-{installation}-{one.value}" for one in _VALUES}


def classes(installation: str, labels: dict[str, str]) -> dict[str, Manifest]:
    """By name.  Values cannot be changed once they are there."""
    return {
        name: {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name, "labels": labels},
            "value": _VALUES[priority],
            "description": f"Services of skep with x-skep: {{priority: {priority.value}}}.",
        }
        for priority, name in names(installation).items()
    }


class Priorities:
    """`ledgers`: of all that there is; `spawn` looks after tasks."""

    def __init__(
        self,
        cluster: Cluster,
        ledgers: Callable[[], Iterable[Ledger]],
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
    ) -> None:
        self._cluster = cluster
        self._ledgers = ledgers
        self._spawn = spawn
        self._classes = classes(cluster.installation, cluster.selector)
        self._there: set[str] = set()
        self._turn = asyncio.Lock()
        self._followed: Watched[PriorityClass] | None = None

    async def ensure(self, template: Manifest) -> None:
        """The class that pods of the template name is there."""
        name = template["spec"].get("priorityClassName")
        if name not in self._classes or name in self._there:
            return
        async with self._turn:
            if name not in self._there:
                if (await self._follow()).get(name) is None:
                    await put(self._cluster, self._classes[name])
                self._there.add(name)

    async def mend(self) -> None:
        """Whatever pods of ours name is there."""
        for ledger in list(self._ledgers()):
            try:
                await self.ensure(ledger.template)
            except SkepError as error:  # a start asks again
                _log.warning("cluster.priority-failed", error=str(error), carrier=ledger.name)

    async def _follow(self) -> Watched[PriorityClass]:
        """From the first one that is asked for; most clusters have none."""
        if self._followed is None:
            self._followed = await (await self._cluster.watched(PriorityClass)).synced()
            self._followed.subscribe(self._heard)
        return self._followed

    def _heard(self, change: Change[PriorityClass]) -> None:
        meta: Any = change.object.metadata
        if change.gone and meta.name in self._there:
            self._there.discard(meta.name)
            _log.warning("cluster.drift", object=f"PriorityClass {meta.name}: deleted")
            self._spawn(self.mend())

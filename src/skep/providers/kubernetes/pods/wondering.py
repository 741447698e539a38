"""Asks the cluster's events why something waits, for as long as it does, and never else.

Events are many, and of everybody: they are not watched.  One list serves all that waits in a namespace.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog
from lightkube.operators import not_in
from lightkube.resources.core_v1 import Event

from skep.model.errors import SkepError
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import ContainerId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods import troubles
from skep.providers.kubernetes.pods.carrier import Carrier
from skep.providers.kubernetes.pods.troubles import Subject

_FIRST, _LONGEST = 3.0, 300.0
"""Seconds between two questions: what is over within the first is never asked about."""
_REST, _AT_LEAST = 30, 15.0
"""Between two it rests so many times as long as the last took, up to so many seconds: a cluster that starts a
hundred pods has hundreds of events."""
_log = structlog.get_logger(__name__)


class Wondering:
    """`carriers`: all there are."""

    def __init__(self, cluster: Cluster, carriers: Callable[[], Iterable[Carrier]]) -> None:
        self._cluster = cluster
        self._carriers = carriers
        self._some = asyncio.Event()

    def notice(self, status: ContainerStatus) -> None:
        """Something became so."""
        if status.state is ContainerState.CREATED or status.health in (Health.STARTING, Health.UNHEALTHY):
            self._some.set()

    async def forever(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            pause = _FIRST
            while pause:
                await asyncio.sleep(pause)
                began = time.monotonic()
                found = await self._ask_all()
                took = time.monotonic() - began
                pause = _next(
                    pause, waiting=found, more=self._some.is_set(), least=min(_AT_LEAST, _REST * took)
                )
                self._some.clear()

    async def ask(self, carrier: Carrier, *containers: ContainerId) -> None:
        """What events say of these is known to the carrier afterwards, if it can be had."""
        await self._ask(carrier.roster.ledger.namespace, dict.fromkeys(containers, carrier))

    async def _ask_all(self) -> bool:
        """Whether anything waits."""
        waiting: dict[str, dict[ContainerId, Carrier]] = defaultdict(dict)
        for carrier in list(self._carriers()):
            for container in carrier.roster.puzzling():
                waiting[carrier.roster.ledger.namespace][container] = carrier
        for namespace, containers in waiting.items():
            await self._ask(namespace, containers)
        return bool(waiting)

    async def _ask(self, namespace: str, containers: dict[ContainerId, Carrier]) -> None:
        try:
            found = await self._cluster.list(Event, namespace, {}, {"reason": not_in(troubles.EVERYDAY)})
        except SkepError as error:
            _log.info("cluster.events-unread", namespace=namespace, error=str(error))
            return
        said = [troubles.said(one) for one in found]
        for container, carrier in containers.items():
            roster = carrier.roster
            subject = Subject(roster.ledger.name, roster.claims, roster.pod(container))
            carrier.explain(container, troubles.trouble(said, subject))


def _next(pause: float, *, waiting: bool, more: bool, least: float) -> float:
    """0: there is nothing to ask about."""
    if not waiting:
        return 0.0
    return min(_LONGEST, max(least, _FIRST if more else pause * 2))

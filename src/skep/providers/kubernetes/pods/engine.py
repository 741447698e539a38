"""The containers of a cluster.  Satisfies control's `Engine`: a cluster is one host of its zone.

What is asked is answered from memory, which watches keep true; what is kept of containers is in the cluster
itself, so another process that enters an engine over the same cluster knows it, too.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from lightkube.resources.core_v1 import Node
from msgspec.structs import replace

from skep.model.errors import Conflict, HostFailure, InvalidInput, Unavailable
from skep.model.host import (
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    ContainerUsage,
    ExecSpec,
    LogLine,
)
from skep.model.ids import Bytes, ContainerId, DiskId, ReplicaId, TenantId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.watching import Watched
from skep.providers.kubernetes.joining.addressing import Plugin
from skep.providers.kubernetes.pods import reading, starts, statuses, teller, words
from skep.providers.kubernetes.pods.carrier import Carrier
from skep.providers.kubernetes.pods.carriers import Carriers
from skep.providers.kubernetes.pods.exec import PodExec
from skep.providers.kubernetes.pods.ledger import Entry
from skep.providers.kubernetes.pods.nodes import label_names
from skep.providers.kubernetes.pods.priorities import names
from skep.providers.kubernetes.pods.seen import SeenPod
from skep.providers.kubernetes.pods.starts import Images, Starts, Supplies
from skep.providers.kubernetes.pods.tables import connections
from skep.providers.kubernetes.pods.teller import Events, Teller
from skep.providers.kubernetes.pods.usage import Meter

_BEGINS = 60.0
"""Seconds after which a start that came to nothing is left to whoever waits for readiness."""
_TABLES = ("cat", "/proc/net/tcp", "/proc/net/tcp6")
_UNKNOWN = 255
"""As Docker: the exit code of what ended while nobody could see it."""


class Fabric(teller.Fabric, Protocol):
    """What of a cluster's fabric hears of names, and says of whom rules speak."""

    def guarded(self, tenant: TenantId) -> Collection[ReplicaId]:
        """Those that rules of groups decide about, or name in what they say of others."""


class ClusterEngine:
    """Entered, it follows what is in the cluster; left, all of it goes on.

    `claim`, `size`, `nameserver` and `addressing` are as for `Starts`; `nodes`: the cluster's machines.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        images: Images,
        supplies: Supplies,
        events: Events,
        claim: Callable[[DiskId], str],
        size: Callable[[DiskId], Awaitable[Bytes | None]],
        fabric: Fabric | None = None,
        nameserver: str = "",
        nodes: Watched[Node] | None = None,
        addressing: Plugin | None = None,
    ) -> None:
        self._cluster = cluster
        labels = partial(label_names, nodes)
        self._starts = Starts(
            images,
            supplies,
            cluster.namespace,
            claim,
            size,
            nameserver,
            addressing,
            labels,
            names(cluster.installation),
        )
        self._meter = Meter(cluster)
        self._teller = Teller(events, fabric)
        guarded = fabric.guarded if fabric is not None else lambda _tenant: ()
        self._carriers = Carriers(cluster, self._teller.tell, nodes, guarded)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        telling = asyncio.create_task(self._teller.forever())
        self._stack.push_async_callback(_ended, telling)
        await self._stack.enter_async_context(self._carriers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # -- orders -----------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> None:
        found, entry = await self._carriers.find(spec.id), starts.entry(spec)
        if found is not None and await self._runs_already(found, spec, entry):
            return
        carrier = await self._start(spec, entry)
        self._carriers.wanted()
        await self._begun(carrier, spec, fresh=found is None)

    async def stop(self, container: ContainerId, grace: float | None = None) -> None:
        """Absent is success: what is not there does not run."""
        if found := await self._carriers.find(container):
            await found.stop(container, grace)
            self._carriers.wanted()

    async def restart(self, container: ContainerId) -> None:
        await (await self._carriers.get(container)).restart(container)

    async def remove(self, container: ContainerId) -> None:
        if found := await self._carriers.find(container):
            await self._carriers.remove(container, found)
        self._teller.removed(container)

    # -- questions --------------------------------------------------------------------------------

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        """As it was heard of last; while nothing is heard, that is said of what does not run."""
        status = (await self._carriers.get(container)).inspect(container)
        if self._carriers.deaf and status.state is not ContainerState.RUNNING:
            return replace(status, error=self._carriers.deaf)
        return status

    async def list(self) -> list[ContainerStatus]:
        await self._carriers.known()
        return [carrier.roster.status(container) for container, carrier in self._carriers.every()]

    async def wait_ready(self, container: ContainerId) -> None:
        carrier = await self._carriers.get(container)
        roster = carrier.roster
        said: list[str] = []

        def decided() -> bool:
            checked, pod = roster.entry(container).checked is not None, roster.pod(container)
            why = statuses.unready(
                roster.status(container),
                checked=checked,
                reachable=roster.reachable(container),
                restarts=pod.restarts if pod else 0,
            )
            said[:] = [] if why is None else [why]
            return why is not None

        await carrier.until(container, decided)
        name = roster.entry(container).name
        if said and said[0]:
            await self._carriers.ask(container, carrier)
            raise Unavailable(await reading.lament(self._cluster, carrier, container, f"{name} {said[0]}"))

    async def wait_exit(self, container: ContainerId) -> int:
        carrier = await self._carriers.get(container)
        roster = carrier.roster
        await carrier.until(container, lambda: roster.status(container).state is ContainerState.EXITED)
        code = roster.status(container).exit_code
        return _UNKNOWN if code is None else code

    async def logs(
        self,
        container: ContainerId,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        carrier = await self._carriers.get(container)
        read = reading.lines(self._cluster, carrier, container, follow=follow, tail=tail, since=since)
        async with contextlib.aclosing(read):
            async for line in read:
                yield line

    async def exec(self, container: ContainerId, spec: ExecSpec) -> PodExec:
        pod = _running(await self._carriers.get(container), container)
        return await PodExec.open(self._cluster, pod.namespace, pod.name, spec)

    async def usage(self, container: ContainerId) -> ContainerUsage:
        """Processes are not counted.  Raises Unsupported: the cluster does not measure."""
        roster = (await self._carriers.get(container)).roster
        entry, pod = roster.entry(container), roster.pod(container)
        if pod is None or not pod.running:
            raise HostFailure(f"{entry.name} does not run.")
        return await self._meter.usage(pod.namespace, pod.name, pod.node, entry.memory_limit)

    async def connections(self, container: ContainerId) -> int:
        """Read from within the container, by its own `cat`.  Raises Unsupported: it has none."""
        pod = (await self._carriers.get(container)).roster.pod(container)
        if pod is None or not pod.running:
            return 0
        session = await PodExec.open(self._cluster, pod.namespace, pod.name, ExecSpec(args=_TABLES))
        return await connections(session)

    # -- starting ---------------------------------------------------------------------------------

    async def _runs_already(self, carrier: Carrier, spec: ContainerSpec, asked: Entry) -> bool:
        """Whether there is nothing to do; a carrier of another shape gives up what does not run."""
        entry = carrier.roster.entry(spec.id)
        if entry.wanted and entry.exit is None:
            if entry.spec != asked.spec:
                raise Conflict(f"{spec.name} runs already, with another specification.")
            if carrier.roster.begun(spec.id):
                return True
        if self._starts.place(spec) != carrier.place:
            await self._carriers.remove(spec.id, carrier)
        return False

    async def _start(self, spec: ContainerSpec, entry: Entry) -> Carrier:
        ledger = await self._starts.ledger(spec)
        await self._carriers.priorities.ensure(ledger.template)
        carrier = self._carriers.at(ledger)
        supply = await self._starts.supply(spec) if carrier.lacks(ledger.shape) else None
        carrier = self._carriers.give(spec.id, carrier)
        await carrier.start(entry, ledger.template, ledger.shape, supply)
        return carrier

    async def _begun(self, carrier: Carrier, spec: ContainerSpec, *, fresh: bool) -> None:
        """Return once it runs, or did; what cannot run at all is told to be so, and nothing of it is left."""
        roster = carrier.roster
        wrong: list[str] = []

        def decided() -> bool:
            pod = roster.pod(spec.id)
            wrong[:] = [said] if pod is not None and (said := words.fatal(pod)) else []
            return bool(wrong) or roster.begun(spec.id)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BEGINS):
                await carrier.until(spec.id, decided)
        if wrong and roster.has(spec.id) and roster.entry(spec.id).wanted:
            await (self._carriers.remove(spec.id, carrier) if fresh else carrier.stop(spec.id, 0))
            raise InvalidInput(f"{spec.name} cannot be started: {wrong[0]}")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _running(carrier: Carrier, container: ContainerId) -> SeenPod:
    """Raises Conflict: it does not run."""
    roster = carrier.roster
    pod = roster.pod(container)
    if pod is None or not pod.running or not roster.entry(container).wanted:
        name, state = roster.entry(container).name, roster.status(container).state
        raise Conflict(f"{name} does not run (it is {state}).")
    return pod

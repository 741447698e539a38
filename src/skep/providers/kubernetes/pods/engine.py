"""The containers of a cluster.  Satisfies control's `Engine`: a cluster is one host of its zone.

What is asked is answered from memory, which watches keep true; what is kept of containers is in the cluster
itself, so another process that enters an engine over the same cluster knows it, too.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import structlog
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod

from skep.model.errors import Conflict, HostFailure, InvalidInput, NotFound, SkepError, Unavailable
from skep.model.host import (
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    ContainerUsage,
    ExecSpec,
    Health,
    LogLine,
)
from skep.model.ids import Bytes, ContainerId, Digest, DiskId, ReplicaId
from skep.model.images import ImageInfo
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.client.watching import Change
from skep.providers.kubernetes.network.pod_dns import pod_dns
from skep.providers.kubernetes.pods import naming, probes, reading, templates, words
from skep.providers.kubernetes.pods.carrier import Around, Carrier
from skep.providers.kubernetes.pods.exec import PodExec
from skep.providers.kubernetes.pods.ledger import Entry, Ledger, read
from skep.providers.kubernetes.pods.naming import Position
from skep.providers.kubernetes.pods.objects import Supply
from skep.providers.kubernetes.pods.seen import SeenPod, see
from skep.providers.kubernetes.pods.tables import connections
from skep.providers.kubernetes.pods.teller import Events, Fabric, Teller
from skep.providers.kubernetes.pods.usage import Meter
from skep.providers.kubernetes.pods.volumes import file_key

_BEGINS = 60.0
"""Seconds after which a start that came to nothing is left to whoever waits for readiness."""
_TABLES = ("cat", "/proc/net/tcp", "/proc/net/tcp6")
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Images(Protocol):
    """Where the cluster's nodes pull from."""

    def reference(self, digest: Digest) -> str:
        """As kubelet pulls it."""

    async def info(self, digest: Digest) -> ImageInfo:
        """Raises NotFound."""


class Supplies(Protocol):
    async def file(self, digest: str) -> bytes: ...


class ClusterEngine:
    """Entered, it follows what is in the cluster; left, all of it goes on.

    `claim` names the PersistentVolumeClaim of a disk, `size` tells how large a system disk is; `nameserver`
    is the cluster's (see `pod_dns`).
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
    ) -> None:
        self._cluster = cluster
        self._nameserver = nameserver
        self._images = images
        self._supplies = supplies
        self._claim = claim
        self._size = size
        self._meter = Meter(cluster)
        self._teller = Teller(events, fabric)
        self._carriers: dict[tuple[str, str], Carrier] = {}
        self._where: dict[ContainerId, Carrier] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._known = asyncio.Event()
        self._ends: list[Callable[[], None]] = []
        self._around = Around(cluster=cluster, tell=self._teller.tell, spawn=self._spawn)

    async def __aenter__(self) -> Self:
        self._spawn(self._teller.forever())
        self._spawn(self._adopt())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end()
        for carrier in self._carriers.values():
            carrier.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- orders -----------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> None:
        await self._ready()
        digest = naming.spec_digest(spec)
        found = self._where.get(spec.id)
        if found is not None and await self._runs_already(found, spec, digest):
            return
        fresh = found is None
        carrier = await self._start(spec, digest)
        await self._begun(carrier, spec, fresh=fresh)

    async def stop(self, container: ContainerId, grace: float | None = None) -> None:
        """Absent is success: what is not there does not run."""
        await self._ready()
        if found := self._where.get(container):
            await found.stop(container, grace)

    async def restart(self, container: ContainerId) -> None:
        await (await self._get(container)).restart(container)

    async def remove(self, container: ContainerId) -> None:
        await self._ready()
        if found := self._where.get(container):
            await self._remove(found, container)
        self._teller.removed(container)

    # -- questions --------------------------------------------------------------------------------

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        return (await self._get(container)).status(container)

    async def list(self) -> list[ContainerStatus]:
        await self._ready()
        there = ((container, carrier) for container, carrier in self._where.items())
        return [carrier.status(container) for container, carrier in there if carrier.has(container)]

    async def wait_ready(self, container: ContainerId) -> None:
        carrier = await self._get(container)
        said: list[str] = []

        def decided() -> bool:
            why = _unready(carrier.status(container), checked=carrier.entry(container).checked is not None)
            said[:] = [] if why is None else [why]
            return why is not None

        await carrier.until(container, decided)
        name = carrier.entry(container).name
        if said and said[0]:
            raise Unavailable(await reading.lament(self._cluster, carrier, container, f"{name} {said[0]}"))

    async def wait_exit(self, container: ContainerId) -> int:
        carrier = await self._get(container)
        await carrier.until(container, lambda: carrier.status(container).state is ContainerState.EXITED)
        code = carrier.status(container).exit_code
        return _UNKNOWN if code is None else code

    async def logs(
        self,
        container: ContainerId,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        carrier = await self._get(container)
        read = reading.lines(self._cluster, carrier, container, follow=follow, tail=tail, since=since)
        async with contextlib.aclosing(read):
            async for line in read:
                yield line

    async def exec(self, container: ContainerId, spec: ExecSpec) -> PodExec:
        pod = self._running(await self._get(container), container)
        return await PodExec.open(self._cluster, pod.namespace, pod.name, spec)

    async def usage(self, container: ContainerId) -> ContainerUsage:
        """Processes are not counted.  Raises Unsupported: the cluster does not measure."""
        carrier = await self._get(container)
        pod = carrier.pod(container)
        if pod is None or not pod.running:
            raise HostFailure(f"{carrier.entry(container).name} does not run.")
        limit = carrier.entry(container).memory_limit
        return await self._meter.usage(pod.namespace, pod.name, pod.node, limit)

    async def connections(self, container: ContainerId) -> int:
        """Read from within the container, by its own `cat`.  Raises Unsupported: it has none."""
        carrier = await self._get(container)
        pod = carrier.pod(container)
        if pod is None or not pod.running:
            return 0
        session = await PodExec.open(self._cluster, pod.namespace, pod.name, ExecSpec(args=_TABLES))
        return await connections(session)

    # -- starting ---------------------------------------------------------------------------------

    async def _runs_already(self, carrier: Carrier, spec: ContainerSpec, digest: str) -> bool:
        """Whether there is nothing to do; a carrier of another shape gives up what is stopped."""
        entry = carrier.entry(spec.id)
        if entry.wanted and entry.exit is None:
            if entry.spec != digest:
                raise Conflict(f"{spec.name} runs already, with another specification.")
            return carrier.begun(spec.id)
        if self._key(spec) != (carrier.ledger.namespace, carrier.ledger.name):
            await self._remove(carrier, spec.id)
        return False

    async def _start(self, spec: ContainerSpec, digest: str) -> Carrier:
        info = await self._images.info(spec.image)
        name = naming.carrier_name(spec)
        where = Position.of(spec.name)
        namespace = self._cluster.namespace(spec.tenant)
        given = templates.Given(
            image=self._images.reference(spec.image),
            image_user=info.config.user,
            secret=name,
            dns=pod_dns(where.app, namespace, self._nameserver),
            system_size=await self._size(spec.system_disk),
            claim=self._claim,
        )
        template = templates.template(spec, given)
        shape = naming.shape_digest(spec)
        carrier = self._carriers.get((namespace, name)) or self._made(spec, name, template, shape)
        supply = await self._supply(spec) if carrier.lacks(shape) else None
        carrier = self._carriers.setdefault((namespace, name), carrier)
        self._where[spec.id] = carrier
        await carrier.start(_entry(spec, digest), template, shape, supply)
        return carrier

    def _made(self, spec: ContainerSpec, name: str, template: templates.Template, shape: str) -> Carrier:
        where = Position.of(spec.name)
        ledger = Ledger(
            kind=naming.kind_of(spec),
            name=name,
            namespace=self._cluster.namespace(spec.tenant),
            tenant=spec.tenant,
            app=naming.label_value(where.app),
            service=naming.label_value(where.service),
            template=template,
            shape=shape,
        )
        return Carrier(ledger, self._around)

    async def _supply(self, spec: ContainerSpec) -> Supply:
        files = {file_key(file): _base64(await self._supplies.file(file.digest)) for file in spec.files}
        variables = {name: _base64(value.encode()) for name, value in templates.environment(spec).items()}
        return {"env": variables, "files": files}

    async def _begun(self, carrier: Carrier, spec: ContainerSpec, *, fresh: bool) -> None:
        """Return once it runs, or did; what cannot run at all is told to be so, and nothing of it is left."""
        wrong: list[str] = []

        def decided() -> bool:
            pod = carrier.pod(spec.id)
            wrong[:] = [said] if pod is not None and (said := words.fatal(pod)) else []
            return bool(wrong) or carrier.begun(spec.id)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BEGINS):
                await carrier.until(spec.id, decided)
        if wrong and carrier.has(spec.id) and carrier.entry(spec.id).wanted:
            await (self._remove(carrier, spec.id) if fresh else carrier.stop(spec.id, 0))
            raise InvalidInput(f"{spec.name} cannot be started: {wrong[0]}")

    async def _remove(self, carrier: Carrier, container: ContainerId) -> None:
        try:
            await carrier.remove(container)
        finally:
            if not carrier.has(container) and self._where.get(container) is carrier:
                del self._where[container]
            if carrier.idle:
                key = (carrier.ledger.namespace, carrier.ledger.name)
                if self._carriers.get(key) is carrier:
                    del self._carriers[key]

    # -- reading ----------------------------------------------------------------------------------

    def _running(self, carrier: Carrier, container: ContainerId) -> SeenPod:
        pod = carrier.pod(container)
        if pod is None or not pod.running or not carrier.entry(container).wanted:
            name, state = carrier.entry(container).name, carrier.status(container).state
            raise Conflict(f"{name} does not run (it is {state}).")
        return pod

    # -- knowing ----------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """What an earlier process wrote down, then what is there; asked for until the cluster answers."""
        while True:
            try:
                await self._read_all()
                break
            except SkepError as error:
                _log.warning("cluster.not-read", error=str(error))
                await asyncio.sleep(1.0)
        pods = await self._cluster.watched(Pod)
        self._ends.append(pods.subscribe(self._pod_heard))
        for kind in (Deployment, StatefulSet):
            workloads: Any = await self._cluster.watched(kind)
            self._ends.append(workloads.subscribe(self._workload_heard))
        while not self._known.is_set():
            with contextlib.suppress(SkepError):
                await pods.synced()
                self._known.set()
        for carrier in list(self._carriers.values()):
            carrier.settle()

    async def _read_all(self) -> None:
        labels = self._cluster.selector
        for namespace in await self._cluster.list(Namespace):
            name = (namespace.metadata and namespace.metadata.name) or ""
            for found in await self._cluster.list(ConfigMap, name, labels):
                self._read(found)

    def _read(self, found: ConfigMap) -> None:
        meta: Any = found.metadata
        if mark("carrier") not in (meta.labels or {}) or (meta.namespace, meta.name) in self._carriers:
            return
        try:
            ledger = read(found.data or {})
        except ValueError as error:
            _log.warning("cluster.ledger-unreadable", name=meta.name, error=str(error))
            return
        carrier = Carrier(ledger, self._around, meta.uid)
        self._carriers[meta.namespace, meta.name] = carrier
        self._where.update(dict.fromkeys(ledger.entries, carrier))

    def _pod_heard(self, change: Change[Pod]) -> None:
        pod = see(change.object)
        if carrier := self._carriers.get((pod.namespace, pod.carrier)):
            carrier.heard(pod, gone=change.gone)

    def _workload_heard(self, change: Change[Any]) -> None:
        meta = change.object.metadata
        if carrier := self._carriers.get((meta.namespace, meta.name)):
            carrier.workload_heard(change.object, gone=change.gone)

    async def _ready(self) -> None:
        """Raises Unavailable: the cluster has not been heard of yet."""
        try:
            async with asyncio.timeout(_BEGINS):
                await self._known.wait()
        except TimeoutError:
            raise Unavailable(f"The cluster at {self._cluster.server} does not answer.") from None

    async def _get(self, container: ContainerId) -> Carrier:
        await self._ready()
        if found := self._where.get(container):
            return found
        raise NotFound(f"This cluster has no container {container}.")

    def _key(self, spec: ContainerSpec) -> tuple[str, str]:
        return self._cluster.namespace(spec.tenant), naming.carrier_name(spec)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


_UNKNOWN = 255
"""As Docker: the exit code of what ended while nobody could see it."""


def _unready(status: ContainerStatus, *, checked: bool) -> str | None:
    """ "" if it is ready, why it will not be, or None as long as that is open."""
    if status.state is ContainerState.RUNNING:
        if status.health in (Health.NONE, Health.HEALTHY):
            return ""
        return "is unhealthy" if status.health is Health.UNHEALTHY else None
    if status.state is ContainerState.EXITED:
        return "" if status.exit_code == 0 and not checked else f"exited with {status.exit_code}"
    return None


def _entry(spec: ContainerSpec, digest: str) -> Entry:
    return Entry(
        id=spec.id,
        replica=ReplicaId(spec.replica),
        name=spec.name,
        spec=digest,
        ports=bool(spec.ports),
        grace=spec.stop_grace_period,
        checked=probes.given_up_after(spec.healthcheck),
        restart=spec.restart,
        memory_limit=spec.memory,
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

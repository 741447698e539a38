"""What services do now: CPU and memory of their replicas, requests and latency of their endpoints.

Hosts count; what happened between two looks is the difference.  A count that became smaller began anew.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import structlog

from skep.control.apps.autoscaling import Seen
from skep.control.host_directory import HostDirectory
from skep.model.edge import EndpointTraffic
from skep.model.errors import SkepError
from skep.model.host import ContainerUsage
from skep.model.ids import ContainerId, EndpointId, HostName
from skep.model.spec import ServiceSpec
from skep.store.endpoints import EndpointRow
from skep.store.replicas import ReplicaRow

PATIENCE = 5.0
"""Seconds within which a host must answer."""
AT_ONCE = 32
"""Questions to hosts at the same time."""

log = structlog.get_logger("skep.measuring")


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What hosts had counted at a moment; who did not answer is not in it."""

    time: float
    usage: Mapping[ContainerId, ContainerUsage]
    traffic: Mapping[tuple[HostName, EndpointId, int], EndpointTraffic]


class Measuring:
    """`monotonic` is a clock that never jumps, in seconds."""

    def __init__(self, directory: HostDirectory, monotonic: Callable[[], float]) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def look(self, members: Collection[ReplicaRow], hosts: Collection[HostName]) -> Look:
        """At the containers of these replicas, and at the endpoints of these hosts."""
        usage = await asyncio.gather(*(self._usage(row) for row in members))
        traffic = await asyncio.gather(*(self._traffic(host) for host in hosts))
        return Look(
            time=self._monotonic(),
            usage={row.container_id: one for row, one in zip(members, usage, strict=True) if one is not None},
            traffic={
                (host, one.endpoint, one.revision): one
                for host, found in zip(hosts, traffic, strict=True)
                for one in found
            },
        )

    async def called(
        self, endpoints: Sequence[EndpointId], hosts: Collection[HostName], since: float
    ) -> bool:
        """Whether one of the endpoints was asked for after that time (seconds since 1970)."""
        asked = [self._last(host, endpoint) for host in hosts for endpoint in endpoints]
        return max(await asyncio.gather(*asked), default=0.0) > since

    async def waited_for(self, endpoints: Collection[EndpointId], hosts: Collection[HostName]) -> bool:
        """Whether requests wait for somebody to serve one of the endpoints."""
        found = await asyncio.gather(*(self._traffic(host) for host in hosts))
        return any(
            one.waiting and not one.revision and one.endpoint in endpoints for each in found for one in each
        )

    async def _usage(self, row: ReplicaRow) -> ContainerUsage | None:
        try:
            async with self._gate, asyncio.timeout(PATIENCE):
                there = await self._directory.answering(row.host)
                return await there.engine.usage(row.container_id)
        except (SkepError, TimeoutError):
            return None

    async def _traffic(self, host: HostName) -> list[EndpointTraffic]:
        try:
            async with self._gate, asyncio.timeout(PATIENCE):
                there = await self._directory.answering(host)
                return await there.edge.traffic()
        except (SkepError, TimeoutError) as error:
            log.info("traffic.unknown", host=host, error=str(error))
            return []

    async def _last(self, host: HostName, endpoint: EndpointId) -> float:
        try:
            async with self._gate, asyncio.timeout(PATIENCE):
                there = await self._directory.answering(host)
                lines = await there.edge.access(endpoint, 1)
        except (SkepError, TimeoutError):
            return 0.0
        return lines[-1].time if lines else 0.0


def seen(
    service: ServiceSpec,
    members: Sequence[ReplicaRow],
    endpoints: Sequence[EndpointRow],
    before: Look | None,
    now: Look,
) -> Seen:
    """What the service did between two looks; of the first one only its memory is known."""
    cpus = _cpus(service, members, before, now)
    memory = [
        100 * used.memory / used.memory_limit
        for row in members
        if (used := now.usage.get(row.container_id)) is not None and used.memory_limit
    ]
    requests, seconds = _requests({row.id for row in endpoints}, before, now)
    span = now.time - before.time if before is not None else 0.0
    counted = span > 0 and bool(endpoints)
    return Seen(
        replicas=service.replicas,
        measured=len(cpus) if service.x_skep.scale and service.x_skep.scale.cpu else len(memory),
        cpu=sum(cpus) / len(cpus) if cpus else None,
        memory=sum(memory) / len(memory) if memory else None,
        requests=requests / span if counted else None,
        latency=seconds / max(requests, 1) if counted else None,  # nobody waits where nobody asks
    )


def _cpus(service: ServiceSpec, members: Sequence[ReplicaRow], before: Look | None, now: Look) -> list[float]:
    """Percent of its limit, of each replica that was seen twice."""
    limit = service.resources.cpus
    if before is None or limit is None or now.time <= before.time:
        return []
    found = []
    for row in members:
        then, last = before.usage.get(row.container_id), now.usage.get(row.container_id)
        if then is not None and last is not None:
            used = _more(then.cpu_seconds, last.cpu_seconds)
            found.append(100 * used / (now.time - before.time) / limit)
    return found


def _requests(endpoints: Collection[EndpointId], before: Look | None, now: Look) -> tuple[float, float]:
    """How many there were, and how many seconds all together took."""
    count = seconds = 0.0
    for key, last in now.traffic.items():
        then = before.traffic.get(key) if before is not None else None
        if key[1] in endpoints and then is not None:
            more = _more(then.requests, last.requests)
            count += more
            seconds += more * last.response_time / 1000
    return count, seconds


def _more(before: float, now: float) -> float:
    return now - before if now >= before else now

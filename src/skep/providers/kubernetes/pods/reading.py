"""What a container wrote, through all its pods: the carrier says which they are, kubelet what is in them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial

from skep.model.errors import InvalidInput, NotFound
from skep.model.host import LogLine
from skep.model.ids import ContainerId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods import logs
from skep.providers.kubernetes.pods.carrier import Carrier
from skep.providers.kubernetes.pods.seen import SeenPod

_LAST_WORDS = 10


async def lines(
    cluster: Cluster,
    carrier: Carrier,
    container: ContainerId,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: str | None = None,
) -> AsyncGenerator[LogLine, None]:
    """Oldest first; with `follow` one pod after the other, until the container is removed."""
    last = ""
    while True:
        pod = carrier.roster.pod(container)
        if pod is not None and (pod.running or pod.ended or pod.ended_before):
            previous = not pod.running and pod.ended is None
            read = logs.lines(
                cluster,
                pod.namespace,
                pod.name,
                follow=follow and not previous,
                tail=tail,
                since=last or since,
                previous=previous,
            )
            with suppress(NotFound, InvalidInput):
                async with aclosing(read):
                    async for line in read:
                        if line.time > last:
                            yield line
                            last, tail = line.time, None
        if not follow:
            return
        await carrier.until(container, partial(_has_another, carrier, container, pod))
        if not carrier.roster.has(container):
            return


async def lament(cluster: Cluster, carrier: Carrier, container: ContainerId, what: str) -> str:
    """What happened, why, and the last lines."""
    pod, status = carrier.roster.pod(container), carrier.roster.status(container)
    why = status.error or status.health_output
    found = await logs.last(cluster, pod.namespace, pod.name, _LAST_WORDS) if pod else []
    said = f"{what.rstrip('. ')}." + (f" {why}" if why else "")
    return said + ("\n".join([" Its last lines:", *found]) if found else "")


def _has_another(carrier: Carrier, container: ContainerId, read: SeenPod | None) -> bool:
    """Whether there may be lines that were not read."""
    now = carrier.roster.pod(container)
    if now is None or not (now.running or now.ended):
        return False
    return read is None or (read.name, read.since, read.ended) != (now.name, now.since, now.ended)

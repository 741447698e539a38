"""What containers use: from the metrics server where there is one, else from kubelet's own summary.

One request serves all who ask within some seconds.  The metrics server tells a rate only: seconds of CPU are
summed up from one look to the next, so they begin with the first look.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from skep.model.errors import Forbidden, NotFound, Unsupported
from skep.model.host import ContainerUsage
from skep.model.ids import Bytes
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods.templates import CONTAINER

_FRESH = 5.0
_GROUP = "metrics.k8s.io"
_SUFFIXES = {"n": "1e-9", "u": "1e-6", "m": "1e-3", "": "1", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12"}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
Key = tuple[str, str]


@dataclass(frozen=True)
class Used:
    """`cores` as a rate, or `cpu_seconds` since the start."""

    memory: int
    cores: float = 0.0
    cpu_seconds: float | None = None


@dataclass
class _Look:
    at: float = -1e9
    found: dict[Key, Used] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Meter:
    """Of all pods of the installation."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._looks: dict[str, _Look] = {}
        self._seconds: dict[Key, float] = {}

    async def usage(self, namespace: str, pod: str, node: str, limit: int | None) -> ContainerUsage:
        """Raises Unsupported: nothing measures there, or skep may not ask."""
        if await self._cluster.serves(_GROUP):
            look = await self._look("", self._metrics)
        else:
            look = await self._look(node, lambda: self._summary(node))
        used = look.get((namespace, pod))
        if used is None:
            raise Unsupported(f"The cluster has not measured {pod} yet.")
        seconds = used.cpu_seconds
        return ContainerUsage(
            cpu_seconds=self._seconds.get((namespace, pod), 0.0) if seconds is None else seconds,
            memory=Bytes(used.memory),
            memory_limit=None if limit is None else Bytes(limit),
            pids=0,
        )

    async def _look(self, name: str, ask: Callable[[], Any]) -> dict[Key, Used]:
        look = self._looks.setdefault(name, _Look())
        async with look.turn:
            now = self._clock()
            if now - look.at > _FRESH:
                found = await ask()
                self._sum(found, now - look.at if look.at > 0 else 0.0)
                look.found, look.at = found, now
        return look.found

    def _sum(self, found: dict[Key, Used], seconds: float) -> None:
        for key, used in found.items():
            if used.cpu_seconds is None:
                self._seconds[key] = self._seconds.get(key, 0.0) + used.cores * seconds

    async def _metrics(self) -> dict[Key, Used]:
        selector = ",".join(f"{key}%3D{value}" for key, value in self._cluster.selector.items())
        path = f"/apis/{_GROUP}/v1beta1/pods?labelSelector={selector}"
        return of_metrics(await self._asked(path))

    async def _summary(self, node: str) -> dict[Key, Used]:
        return of_summary(await self._asked(f"/api/v1/nodes/{node}/proxy/stats/summary"))

    async def _asked(self, path: str) -> Any:
        try:
            return await self._cluster.document(path)
        except (Forbidden, NotFound) as error:
            raise Unsupported(
                "The cluster does not measure what containers use: install the metrics server there."
            ) from error


def of_metrics(document: Any) -> dict[Key, Used]:
    """https://github.com/kubernetes/metrics, PodMetricsList."""
    found = {}
    for pod in document["items"]:
        for container in pod["containers"]:
            if container["name"] == CONTAINER:
                usage = container["usage"]
                key = pod["metadata"]["namespace"], pod["metadata"]["name"]
                found[key] = Used(memory=int(quantity(usage["memory"])), cores=float(quantity(usage["cpu"])))
    return found


def of_summary(document: Any) -> dict[Key, Used]:
    """Kubelet's stats/v1alpha1; what has not run for long has no figures yet."""
    found = {}
    for pod in document.get("pods") or ():
        key = pod["podRef"]["namespace"], pod["podRef"]["name"]
        for container in pod.get("containers") or ():
            cpu = container.get("cpu", {}).get("usageCoreNanoSeconds")
            memory = container.get("memory", {}).get("workingSetBytes")
            if container["name"] == CONTAINER and cpu is not None and memory is not None:
                found[key] = Used(memory=memory, cpu_seconds=cpu / 1e9)
    return found


def quantity(text: str) -> Decimal:
    """`250m`, `64Mi`, `12345678n`: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
    number = text.rstrip("KMGTPikmnu")
    suffix = text[len(number) :]
    if suffix in _BINARY:
        return Decimal(number) * _BINARY[suffix]
    return Decimal(number) * Decimal(_SUFFIXES[suffix])

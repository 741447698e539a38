"""Leaving a cluster: what skep made there goes, and nothing else."""

from collections.abc import Iterable
from typing import Any

import structlog
from lightkube.resources.core_v1 import Namespace
from lightkube.resources.scheduling_v1 import PriorityClass

from skep.model.clusters import ClusterAccess
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster

log = structlog.get_logger(__name__)

_KINDS: tuple[type[Any], ...] = (Namespace, PriorityClass)
"""Of the whole cluster; all else is in the namespaces of tenants and goes with them."""


async def leave(where: ClusterAccess) -> None:
    """Delete everything that bears the id.  The cluster goes on with it after the answer."""
    async with Cluster(access.read(where.kubeconfig, where.context), where.id) as cluster:
        for kind in _KINDS:
            for name in _names(await cluster.list(kind)):
                await cluster.delete(kind, name)
                log.info("cluster.left", server=cluster.server, kind=kind.__name__, name=name)


def _names(found: Iterable[Any]) -> list[str]:
    return [one.metadata.name for one in found]

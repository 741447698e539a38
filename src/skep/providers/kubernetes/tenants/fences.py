"""Limits and walls of tenants' namespaces: what of them stands, and how the rest is put up."""

import asyncio
from collections.abc import Iterable
from typing import Any

from lightkube.resources.core_v1 import LimitRange, ResourceQuota
from lightkube.resources.networking_v1 import NetworkPolicy

from skep.model.errors import Unavailable
from skep.providers.kubernetes.applied import stands
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.patience import SOON
from skep.providers.kubernetes.client.side_by_side import side_by_side
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.tenants import namespaces
from skep.providers.kubernetes.tenants.namespaces import Bounds

_BELIEVED = 60.0
"""Seconds for which what was read of all namespaces is taken for what is there."""
_LIMITS: dict[str, type[Any]] = {"ResourceQuota": ResourceQuota, "LimitRange": LimitRange}
Thing = tuple[str, str, str]
"""Kind, namespace and name."""


class Fences:
    """Of all namespaces of a cluster.

    Policies are watched.  Quotas change with every pod, so they and limits are read once, for all that an
    earlier process left.  What an older role does not let skep see never stands.
    """

    def __init__(self, cluster: Cluster, bounds: Bounds) -> None:
        self._cluster = cluster
        self._bounds = bounds
        self._left: dict[Thing, Manifest] | None = None
        self._reading = asyncio.Lock()

    async def put_up_limits(self, of: TenantNamespace, *, fresh: bool) -> None:
        """Those that do not stand; none does in a `fresh` namespace.

        Raises Unavailable: the cluster does not count a quota, and refuses whatever that is about.
        """
        new = await self._put_up(namespaces.limits(of, self._bounds), fresh)
        if any(one["kind"] == "ResourceQuota" for one in new):
            await self._counted(of)

    async def put_up_walls(self, of: TenantNamespace, *, fresh: bool) -> None:
        """As limits."""
        await self._put_up(namespaces.walls(of), fresh)

    async def _put_up(self, fences: Iterable[Manifest], fresh: bool) -> list[Manifest]:
        new = [one for one in fences if fresh or not await self._stands(one)]
        await side_by_side(*(put(self._cluster, one) for one in new))
        return new

    async def _stands(self, fence: Manifest) -> bool:
        namespace, name = fence["metadata"]["namespace"], fence["metadata"]["name"]
        if fence["kind"] == "NetworkPolicy":
            policies = await self._cluster.watched(NetworkPolicy)
            found = policies.get(name, namespace) if await policies.allowed() else None
            return found is not None and stands(fence, found.to_dict())
        left = (await self._read()).pop((fence["kind"], namespace, name), {})
        return stands(fence, left) and (fence["kind"] != "ResourceQuota" or _is_counted(left))

    async def _read(self) -> dict[Thing, Manifest]:
        async with self._reading:
            if self._left is None:
                found = await side_by_side(*map(self._cluster.seen, _LIMITS.values()))
                self._left = {
                    (kind, one.metadata.namespace, one.metadata.name): one.to_dict()
                    for kind, every in zip(_LIMITS, found, strict=True)
                    for one in every or ()
                }
                asyncio.get_running_loop().call_later(_BELIEVED, self._left.clear)
            return self._left

    async def _counted(self, of: TenantNamespace) -> None:
        for pause in (*SOON, 0):
            quota = await self._cluster.get(ResourceQuota, namespaces.QUOTA, of.name)
            if _is_counted(quota.to_dict()):
                return
            await asyncio.sleep(pause)
        raise Unavailable(f"The quota of namespace {of.name} is not counted: does the quota controller run?")


def _is_counted(quota: Manifest) -> bool:
    return bool((quota.get("status") or {}).get("hard"))

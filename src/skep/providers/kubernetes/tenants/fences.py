"""Limits and walls of tenants' namespaces: what of them stands, and how the rest is put up."""

import asyncio
from typing import Any

from lightkube.resources.core_v1 import LimitRange, ResourceQuota
from lightkube.resources.networking_v1 import NetworkPolicy

from skep.model.errors import Unavailable
from skep.providers.kubernetes.applied import stands
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.patience import SOON
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
        self._up: dict[tuple[str, str], str] = {}
        """Walls as far as is known, by namespace and name, with their uids."""
        self._limits: dict[Thing, Manifest] | None = None
        self._reading = asyncio.Lock()

    async def put_up(self, of: TenantNamespace, *, fresh: bool) -> None:
        """All that does not stand; nothing does in a `fresh` namespace.

        Raises:
            Forbidden: not yet, perhaps: API servers may not have heard of the binding.
            Unavailable: the cluster does not count the quota.
        """
        if fresh:
            self.forget(of)
        wanted = namespaces.fences(of, self._bounds)
        new = [one for one in wanted if fresh or not await self._stands(one)]
        await asyncio.gather(*map(self._put, new))
        if any(one["kind"] == "ResourceQuota" for one in new):
            await self._counted(of)

    def are_up(self, of: TenantNamespace) -> bool:
        """Whether no wall has fallen since they were put up."""
        return all((of.name, wall) in self._up for wall in namespaces.WALLS)

    def fallen(self, of: TenantNamespace, policy: str, uid: str | None) -> bool:
        """Take note that a policy is gone (`uid`: that one, if there are several).  Whether it was a wall."""
        if uid not in (None, self._up.get((of.name, policy))):
            return False
        return self._up.pop((of.name, policy), None) is not None

    def forget(self, of: TenantNamespace) -> None:
        """Its namespace goes, or is another one now."""
        for wall in namespaces.WALLS:
            self._up.pop((of.name, wall), None)

    async def _stands(self, fence: Manifest) -> bool:
        namespace, name = _place(fence)
        if fence["kind"] == "NetworkPolicy":
            policies = await self._cluster.watched(NetworkPolicy)
            found = policies.get(name, namespace) if await policies.allowed() else None
            if found is None or not stands(fence, found.to_dict()):
                return False
            self._up[namespace, name] = (found.metadata and found.metadata.uid) or ""
            return True
        left = (await self._left()).pop((fence["kind"], namespace, name), {})
        return stands(fence, left) and (fence["kind"] != "ResourceQuota" or _is_counted(left))

    async def _left(self) -> dict[Thing, Manifest]:
        async with self._reading:
            if self._limits is None:
                found = await asyncio.gather(*map(self._cluster.seen, _LIMITS.values()))
                self._limits = {
                    (kind, one.metadata.namespace, one.metadata.name): one.to_dict()
                    for kind, every in zip(_LIMITS, found, strict=True)
                    for one in every or ()
                }
                asyncio.get_running_loop().call_later(_BELIEVED, self._limits.clear)
            return self._limits

    async def _put(self, fence: Manifest) -> None:
        found = await put(self._cluster, fence)
        if fence["kind"] == "NetworkPolicy":
            self._up[_place(fence)] = found.metadata.uid

    async def _counted(self, of: TenantNamespace) -> None:
        """Until a quota has been counted for the first time, whatever it is about is refused."""
        for pause in (*SOON, 0):
            quota = await self._cluster.get(ResourceQuota, namespaces.QUOTA, of.name)
            if _is_counted(quota.to_dict()):
                return
            await asyncio.sleep(pause)
        raise Unavailable(f"The quota of namespace {of.name} is not counted: does the quota controller run?")


def _is_counted(quota: Manifest) -> bool:
    return bool((quota.get("status") or {}).get("hard"))


def _place(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]

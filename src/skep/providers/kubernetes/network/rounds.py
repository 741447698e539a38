"""A round: what of one tenant's networks is not in the cluster as it is to be is applied, or deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from skep.model.errors import InvalidInput, NotFound, SkepError
from skep.model.ids import ServiceId
from skep.providers.kubernetes.applied import digest
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.manifests import Manifest
from skep.providers.kubernetes.network.tenancy import KINDS, Failures, Key, Tenancy, key_of
from skep.providers.kubernetes.network.wanted import Circumstances, wanted
from skep.providers.kubernetes.tenants.tenants import Tenants

Certify = Callable[[str], Awaitable[bytes]]
"""The PEM of a certificate by its digest; raises NotFound."""

_STEPS = 3
"""The cluster gives addresses to services, and names lead to these: one step of a round after the other."""


class Rounds:
    """`now` is read anew in every step; `certify` is asked for certificates of endpoints."""

    def __init__(self, cluster: Cluster, tenants: Tenants, certify: Certify, now: Circumstances) -> None:
        self._cluster = cluster
        self._tenants = tenants
        self._certify = certify
        self._now = now
        self._certificates: dict[str, bytes] = {}

    async def run(self, tenancy: Tenancy) -> Failures:
        """One.  It must be the tenant's turn.

        Raises:
            SkepError: the namespace cannot be, or cannot go.
        """
        tenant = tenancy.of.tenant
        if not tenancy.record.empty:
            await self._tenants.ensure(tenant)
        elif not tenancy.there:
            if not await self._tenants.release(tenant):  # there are disks
                await self._tenants.mend(tenant)
            return {}
        failed: Failures = {}
        await self._have_certificates(tenancy)
        for _ in range(_STEPS):
            now = replace(self._now, virtual=tenancy.virtual, certificates=self._certificates)
            new, gone = tenancy.changes(wanted(tenancy.of, tenancy.record, now), failed)
            if not new and not gone:
                break
            _note_writing(tenancy)  # what is heard from now on rests
            await self._carry_out(tenancy, new, gone, failed)
            _note_writing(tenancy)
        tenancy.failed = failed
        if tenancy.record.empty and not failed:
            await self._tenants.release(tenant)
        return failed

    async def _carry_out(
        self, tenancy: Tenancy, new: list[Manifest], gone: list[Key], failed: Failures
    ) -> None:
        for wave in tenancy.waves(new):
            may = [one for one in wave if not tenancy.must_stand(key_of(one), failed)]
            await asyncio.gather(*(self._apply(tenancy, one, failed) for one in may))
        may_go = [key for key in gone if not tenancy.must_stand(key, failed)]
        await asyncio.gather(*(self._delete(tenancy, key, failed) for key in may_go))

    async def _apply(self, tenancy: Tenancy, manifest: Manifest, failed: Failures) -> None:
        key, written = key_of(manifest), digest(manifest)
        try:
            found = await self._put(tenancy, manifest)
        except SkepError as error:
            failed[key] = error
            return
        tenancy.there[key], tenancy.uids[key] = written, found.metadata.uid
        if key[0] == "Service":
            tenancy.note_address(found.to_dict())

    async def _put(self, tenancy: Tenancy, manifest: Manifest) -> Any:
        """A virtual IP that somebody deleted keeps its address, which programs know, if it is still free."""
        if address := tenancy.address_before(manifest):
            pinned = manifest | {"spec": manifest["spec"] | {"clusterIP": address}}
            with suppress(InvalidInput):
                return await put(self._cluster, pinned)
        return await put(self._cluster, manifest)

    async def _delete(self, tenancy: Tenancy, key: Key, failed: Failures) -> None:
        kind, name = key
        tenancy.there.pop(key, None)
        try:
            await self._cluster.delete(KINDS[kind], name, tenancy.of.name)
        except SkepError as error:
            failed[key], tenancy.there[key] = error, ""
            return
        if kind == "Service" and name.startswith("virtual-ip-"):
            tenancy.virtual.pop(ServiceId(name.removeprefix("virtual-ip-")), None)

    async def _have_certificates(self, tenancy: Tenancy) -> None:
        shown = {one.certificate for told in tenancy.record.endpoints.values() for one in told.endpoints}
        for one in shown - self._certificates.keys() - {""}:
            with suppress(NotFound):
                self._certificates[one] = await self._certify(one)


def _note_writing(tenancy: Tenancy) -> None:
    tenancy.wrote = asyncio.get_running_loop().time()

"""The objects of one carrier in the cluster: written only if they differ from what was written last."""

from typing import Any

import structlog
from lightkube import codecs
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Pod

from skep.model.errors import NotFound
from skep.providers.kubernetes import applied
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods import manifests
from skep.providers.kubernetes.pods.ledger import Entry, Ledger, written
from skep.providers.kubernetes.pods.manifests import Manifest
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.templates import grace

Supply = dict[str, dict[str, str]]
"""`env` and `files`: the content of the Secrets of that name, in base64."""
_KINDS: dict[CarrierKind, Any] = {
    CarrierKind.DEPLOYMENT: Deployment,
    CarrierKind.STATEFUL_SET: StatefulSet,
}


class Objects:
    """`known` with its `uid`: the ledger that an earlier process left."""

    def __init__(self, cluster: Cluster, known: Ledger | None, uid: str) -> None:
        self._cluster = cluster
        self._uid = uid
        self._written = known
        self.supplied = ""  # an earlier process may have died before it wrote the Secrets
        """The shape whose Secrets are there."""
        self._supply: Supply = {}
        self._applied: Manifest | None = None
        self._made: Any = None
        """The metadata that the object had then."""
        self._applying = False
        self._meanwhile: tuple[Deployment | StatefulSet, bool] | None = None
        self._found: Deployment | StatefulSet | None = None
        """What was heard of last, while nothing is known to be applied."""

    def supply(self, content: Supply) -> None:
        """For the Secrets of the next `write`."""
        self._supply, self.supplied = content, ""

    async def write(self, ledger: Ledger) -> None:
        """The ledger, which owns all others, and the Secrets."""
        base = self._cluster.selector
        if not ledger.says_as_much_as(self._written):
            (found,) = await self._put(written(ledger, manifests.labels_of(ledger, base)), force=True)
            self._uid, self._written = found.metadata.uid, ledger
        if self.supplied == ledger.shape or not self._supply:
            return
        for part, data in self._supply.items():
            if data:
                await self._put(manifests.secret(ledger, part, data, base, self._uid), force=True)
        self.supplied = ledger.shape

    async def apply(self, ledger: Ledger) -> bool:
        """The Deployment or StatefulSet; what another manager has taken of it is taken back, and said.

        True: what was heard meanwhile may be somebody else's doing, so it is to be applied again.
        """
        manifest = manifests.workload(ledger, self._cluster.selector, self._uid)
        if manifest == self._applied or self._stands(manifest):
            return False
        self._applying, self._meanwhile, self._applied, self._found = True, None, None, None
        try:
            made = await put(self._cluster, manifest)
        finally:
            self._applying = False
        self._applied, self._made = manifest, made.metadata
        return self._differed_meanwhile()

    def _stands(self, manifest: Manifest) -> bool:
        """Whether an earlier process left just that; from then on it is as if this one had applied it."""
        found = self._found
        if found is None or not applied.stands(manifest, found.to_dict()):
            return False
        self._applied, self._made, self._found = manifest, found.metadata, None
        return True

    def differ(self, found: Deployment | StatefulSet, *, gone: bool) -> bool:
        """Whether somebody else changed or deleted it, so that it is to be applied again.

        What is told may be older than what was applied last: that is nobody's doing.
        """
        if self._applying:
            self._meanwhile = (found, gone)
            return False
        if self._applied is None or self._written is None:
            self._found = None if gone else found
            return False
        if self._is_old(found, gone=gone):
            return False
        if gone:
            _drift(self._written, object="deleted")
            # Perhaps it went with the ledger: then that, and what it owned, is to be written anew.
            self._written, self.supplied, self._applied = None, "", None
            return True
        fields = list(applied.drifted(self._applied["spec"], found.to_dict()["spec"], "spec"))
        if fields:
            _drift(self._written, fields=fields)
            self._applied = None
        return bool(fields)

    def _is_old(self, found: Deployment | StatefulSet, *, gone: bool) -> bool:
        """A watch tells what was: so it was before what stands was applied, or that was another object."""
        told: Any = found.metadata
        if gone:
            return bool(told.uid != self._made.uid)
        return not applied.is_younger(told.resourceVersion, self._made.resourceVersion)

    def _differed_meanwhile(self) -> bool:
        if self._meanwhile is None:
            return False
        found, gone = self._meanwhile
        return self.differ(found, gone=gone)

    async def clear_workload(self, ledger: Ledger) -> None:
        self._applied = self._found = None
        if (kind := _KINDS.get(ledger.kind)) is not None:
            await self._cluster.delete(kind, ledger.name, ledger.namespace)

    async def clear(self, ledger: Ledger) -> None:
        """The ledger goes, and with it what it owns."""
        self._uid, self._written, self.supplied = "", None, ""
        await self._cluster.delete(ConfigMap, ledger.name, ledger.namespace)

    async def make(self, ledger: Ledger, entry: Entry) -> None:
        """A pod of its own."""
        await self._put(manifests.pod(ledger, entry, self._cluster.selector, self._uid))

    async def label(self, ledger: Ledger, pod: str, labels: dict[str, Any]) -> bool:
        """False: the pod is gone."""
        try:
            await self._cluster.patch(Pod, pod, {"metadata": {"labels": labels}}, ledger.namespace)
        except NotFound:
            return False
        return True

    async def end(self, ledger: Ledger, pod: str, seconds: float) -> None:
        await self._cluster.delete(Pod, pod, ledger.namespace, grace=grace(seconds))

    async def _put(self, manifest: Manifest, *, force: bool = False) -> list[Any]:
        return await self._cluster.apply(codecs.from_dict(manifest), force=force)


def _drift(ledger: Ledger, **what: object) -> None:
    log = structlog.get_logger(__name__)
    log.warning("cluster.drift", carrier=ledger.name, namespace=ledger.namespace, **what)

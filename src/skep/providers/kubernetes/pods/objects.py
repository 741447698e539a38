"""The objects of one carrier in the cluster: written only if they differ from what was written last."""

from typing import Any

import structlog
from lightkube import codecs
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Pod

from skep.model.errors import Conflict, NotFound
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
        self._applying = False
        self._meanwhile: tuple[Deployment | StatefulSet, bool] | None = None

    def supply(self, content: Supply) -> None:
        """For the Secrets of the next `write`."""
        self._supply, self.supplied = content, ""

    async def write(self, ledger: Ledger) -> None:
        """The ledger, which owns all others, and the Secrets."""
        base = self._cluster.selector
        if self._written != ledger:
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
        if manifest == self._applied:
            return False
        self._applying, self._meanwhile = True, None
        try:
            await self._put(manifest)
        except Conflict as error:
            if "managers" not in error.details:
                raise
            _drift(ledger, managers=error.details["managers"])
            await self._put(manifest, force=True)
        finally:
            self._applying = False
        self._applied = manifest
        return self._differed_meanwhile()

    def differ(self, found: Deployment | StatefulSet, *, gone: bool) -> bool:
        """Whether somebody else changed or deleted it, so that it is to be applied again."""
        if self._applying:
            self._meanwhile = (found, gone)
            return False
        if self._applied is None or self._written is None:
            return False
        if gone:
            _drift(self._written, object="deleted")
            # Perhaps it went with the ledger: then that, and what it owned, is to be written anew.
            self._written, self.supplied, self._applied = None, "", None
            return True
        fields = list(manifests.drifted(self._applied["spec"], found.to_dict()["spec"], "spec"))
        if fields:
            _drift(self._written, fields=fields)
            self._applied = None
        return bool(fields)

    def _differed_meanwhile(self) -> bool:
        if self._meanwhile is None:
            return False
        found, gone = self._meanwhile
        return self.differ(found, gone=gone)

    async def clear_workload(self, ledger: Ledger) -> None:
        self._applied = None
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

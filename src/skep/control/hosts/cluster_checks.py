"""What a Kubernetes cluster is good for, before it becomes a zone.  For operators."""

from skep.control.callers import Caller
from skep.control.ports import Clusters
from skep.model.errors import Unsupported
from skep.model.views.clusters import ClusterCheck, RightsView


class ClusterChecks:
    def __init__(self, clusters: Clusters | None) -> None:
        """`clusters` None: this process reaches none."""
        self._known = clusters

    async def check(self, caller: Caller, kubeconfig: str, context: str | None) -> ClusterCheck:
        """See `Clusters.check`.  The kubeconfig is not kept."""
        caller.must_operate()
        return await self._clusters.check(kubeconfig, context)

    async def rights(self, caller: Caller) -> RightsView:
        caller.must_operate()
        return RightsView(manifest=self._clusters.rights())

    @property
    def _clusters(self) -> Clusters:
        if self._known is None:
            raise Unsupported("This process of skep does not work with Kubernetes.")
        return self._known

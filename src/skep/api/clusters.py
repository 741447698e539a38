"""Kubernetes clusters that zones may stand on; for admins."""

from litestar import Router, get, post
from litestar.params import JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import CheckCluster
from skep.model.views.clusters import ClusterCheck, RightsView


@post("/clusters/check", status_code=200)
async def check_cluster(control: Control, caller: Caller, data: JSONBody[CheckCluster]) -> ClusterCheck:
    """Look what a Kubernetes cluster is good for as a zone; nothing there is changed, nothing is kept."""
    return await control.clusters.check(caller, data.kubeconfig, data.context)


@get("/clusters/rights")
async def cluster_rights(control: Control, caller: Caller) -> RightsView:
    """Manifests that give skep's account in a cluster the rights it needs, and no others."""
    return await control.clusters.rights(caller)


router = Router(path="/v1", tags=["clusters"], route_handlers=[check_cluster, cluster_rights])

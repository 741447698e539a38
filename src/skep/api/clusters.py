"""Kubernetes clusters: what they are good for, and the zones that stand on them; for admins."""

from litestar import Router, get, patch, post
from litestar.params import FromPath, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import CheckCluster, NewClusterZone, SetClusterZone
from skep.api.images import login_of
from skep.model.views.clusters import ClusterCheck, ClusterZoneView, RightsView


@post("/clusters/check", status_code=200)
async def check_cluster(control: Control, caller: Caller, data: JSONBody[CheckCluster]) -> ClusterCheck:
    """Look what a Kubernetes cluster is good for as a zone; nothing there is changed, nothing is kept."""
    return await control.clusters.check(caller, data.kubeconfig, data.context)


@get("/clusters/rights")
async def cluster_rights(control: Control, caller: Caller) -> RightsView:
    """Manifests that give skep's account in a cluster the rights it needs, and no others."""
    return await control.clusters.rights(caller)


@post("/zones/{zone:str}/cluster", status_code=200)
async def add_cluster_zone(
    control: Control, caller: Caller, zone: FromPath[str], data: JSONBody[NewClusterZone]
) -> ClusterZoneView:
    """Make a zone of a Kubernetes cluster, which is checked first; answers what works there.

    What the cluster and the registry are reached with is kept sealed, and is never shown.
    """
    return await control.cluster_zones.add(
        caller,
        zone,
        data.kubeconfig,
        data.registry,
        region=data.region,
        context=data.context,
        credentials=login_of(data.username, data.password),
    )


@patch("/zones/{zone:str}/cluster")
async def change_cluster_zone(
    control: Control, caller: Caller, zone: FromPath[str], data: JSONBody[SetClusterZone]
) -> ClusterZoneView:
    """Reach the zone's cluster or registry otherwise, as with a new token; it must be the same cluster."""
    return await control.cluster_zones.change(
        caller,
        zone,
        kubeconfig=data.kubeconfig,
        context=data.context,
        registry=data.registry,
        credentials=login_of(data.username, data.password),
    )


@get("/zones/{zone:str}/cluster")
async def show_cluster_zone(control: Control, caller: Caller, zone: FromPath[str]) -> ClusterZoneView:
    """A zone on a cluster, and what works there now."""
    return await control.cluster_zones.show(caller, zone)


router = Router(
    path="/v1",
    tags=["clusters"],
    route_handlers=[
        *(check_cluster, cluster_rights),
        *(add_cluster_zone, change_cluster_zone, show_cluster_zone),
    ],
)

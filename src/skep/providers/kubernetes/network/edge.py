"""HTTP(S) by name and path, led into a cluster by what the cluster has for it.  Satisfies `Edge` of control.

What leads requests there says in no standard way what it led: traffic is not counted, and no request is
written down.
"""

from lightkube.resources.networking_v1 import IngressClass

from skep.model.edge import AccessLine, AppEndpoints, EndpointTraffic
from skep.model.host import PeersInForce, in_force, must_be_news
from skep.model.ids import AppId, EndpointId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.joining.gateways import GATEWAYS, Gateway, open_gateways
from skep.providers.kubernetes.network.entrances import Entrance, check
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.network.tenancy import Tenancy

_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


class ClusterEdge:
    def __init__(self, tenancies: Tenancies) -> None:
        self._tenancies = tenancies

    async def set_endpoints(self, told: AppEndpoints) -> None:
        """Raises Unsupported: what it asks for has no word in the standard."""
        if (tenancy := self._owner(told)) is None:
            return
        before = tenancy.record.endpoints.get(told.app)
        must_be_news(f"the endpoints of app {told.app}", told, before)
        check(told, self._tenancies.entrance)
        tenancy.record.endpoints[told.app] = told
        ids = {told.app, *(one.id for one in told.endpoints)}
        await self._tenancies.brought(tenancy, lambda key: any(one in key[1] for one in ids))

    def _owner(self, told: AppEndpoints) -> Tenancy | None:
        """Of an app that has no endpoints any more nobody says whose it was; None: it never had any here."""
        every = self._tenancies.every()
        known = next((one for one in every if told.app in one.record.endpoints), None)
        return known or (self._tenancies.tenancy(told.tenant) if told.tenant else None)

    async def endpoints(self) -> dict[AppId, PeersInForce]:
        every = self._tenancies.every()
        return in_force({app: told for one in every for app, told in one.record.endpoints.items()})

    async def traffic(self) -> list[EndpointTraffic]:
        """Nobody counts it."""
        return []

    async def access(self, endpoint: EndpointId, tail: int = 100) -> list[AccessLine]:
        """Nobody writes it down."""
        return []


async def entrance(cluster: Cluster) -> Entrance | None:
    """What leads requests into the cluster: the default ingress class, or else the first, or else the first
    Gateway that takes routes of all namespaces.  None: nothing does."""
    classes = await cluster.list(IngressClass, labels={})
    if names := sorted((not _is_default(one), one.metadata.name or "") for one in classes if one.metadata):
        return Entrance(ingress_class=names[0][1])
    if not await cluster.serves(f"{GATEWAYS}/v1"):
        return None
    places = open_gateways(await cluster.seen(Gateway, labels={}) or ())
    return Entrance(gateway=places[0]) if places else None


def _is_default(found: IngressClass) -> bool:
    marks = (found.metadata and found.metadata.annotations) or {}
    return marks.get(_DEFAULT) == "true"

"""The edge of a simulated host: it knows who would answer."""

from skep.model.edge import AccessLine, AppEndpoints, EdgeEndpoint, EndpointTraffic
from skep.model.host import PeersInForce, in_force, must_be_news
from skep.model.ids import AppId, EndpointId


class SimulatedEdge:
    """Satisfies `Edge` of control.  `counts` are what a test wants it to have counted."""

    def __init__(self) -> None:
        self.told: dict[AppId, AppEndpoints] = {}
        self.counts: dict[tuple[EndpointId, int], EndpointTraffic] = {}
        self.lines: dict[EndpointId, list[AccessLine]] = {}

    async def set_endpoints(self, told: AppEndpoints) -> None:
        must_be_news(f"the endpoints of app {told.app}", told, self.told.get(told.app))
        self.told[told.app] = told

    async def endpoints(self) -> dict[AppId, PeersInForce]:
        return in_force(self.told)

    async def traffic(self) -> list[EndpointTraffic]:
        found = {
            (one.id, server.revision): EndpointTraffic(endpoint=one.id, revision=server.revision)
            for one in self._every()
            for server in one.servers
        }
        return list((found | self.counts).values())

    async def access(self, endpoint: EndpointId, tail: int = 100) -> list[AccessLine]:
        return self.lines.get(endpoint, [])[-tail:]

    def _every(self) -> list[EdgeEndpoint]:
        return [one for app in self.told.values() for one in app.endpoints]

"""The edge of a simulated host: it knows who would answer."""

from skep.model.edge import AccessLine, AppEndpoints, EdgeEndpoint, EndpointTraffic
from skep.model.errors import Stale
from skep.model.host import PeersInForce
from skep.model.ids import AppId, EndpointId


class SimulatedEdge:
    """Satisfies `Edge` of control.  `counts` are what a test wants it to have counted."""

    def __init__(self) -> None:
        self.told: dict[AppId, AppEndpoints] = {}
        self.counts: dict[tuple[EndpointId, int], EndpointTraffic] = {}
        self.lines: dict[EndpointId, list[AccessLine]] = {}

    async def set_endpoints(self, told: AppEndpoints) -> None:
        before = self.told.get(told.app)
        if before is not None and told.generation < before.generation:
            raise Stale(f"Generation {told.generation} is older than {before.generation}, which is in force.")
        self.told[told.app] = told

    async def endpoints(self) -> dict[AppId, PeersInForce]:
        return {
            app: PeersInForce(generation=one.generation, digest=one.digest) for app, one in self.told.items()
        }

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

"""The edge of a host elsewhere.  Satisfies `Edge` of control."""

from skep.model.edge import AccessLine, AppEndpoints, EndpointTraffic
from skep.model.host import PeersInForce
from skep.model.ids import AppId, EndpointId
from skep.providers.remote.line import Line


class RemoteEdge:
    def __init__(self, line: Line) -> None:
        self._line = line

    async def set_endpoints(self, told: AppEndpoints) -> None:
        await self._line.tell("set_endpoints", told=told)

    async def endpoints(self) -> dict[AppId, PeersInForce]:
        return await self._line.ask("endpoints", dict[AppId, PeersInForce])

    async def traffic(self) -> list[EndpointTraffic]:
        return await self._line.ask("traffic", list[EndpointTraffic])

    async def access(self, endpoint: EndpointId, tail: int = 100) -> list[AccessLine]:
        return await self._line.ask("access", list[AccessLine], endpoint=endpoint, tail=tail)

"""The networks of a host elsewhere.  Satisfies `Fabric` of control."""

from skep.model.host import (
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    PortConfig,
    ServicePublications,
)
from skep.model.ids import NetworkId, PortId, ReplicaId, ServiceId
from skep.providers.remote.line import Line


class RemoteFabric:
    def __init__(self, line: Line) -> None:
        self._line = line

    async def ensure_network(self, network: NetworkConfig) -> None:
        await self._line.tell("ensure_network", network=network)

    async def delete_network(self, network: NetworkId) -> None:
        await self._line.tell("delete_network", network=network)

    async def plug(self, port: PortConfig) -> None:
        await self._line.tell("plug", port=port)

    async def unplug(self, port: PortId) -> None:
        await self._line.tell("unplug", port=port)

    async def remove_sandbox(self, replica: ReplicaId) -> None:
        await self._line.tell("remove_sandbox", replica=replica)

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        await self._line.tell("set_resolvable", replica=replica, up=up)

    async def publish(self, publications: ServicePublications) -> None:
        await self._line.tell("publish", publications=publications)

    async def unpublish(self, service: ServiceId) -> None:
        await self._line.tell("unpublish", service=service)

    async def set_peers(self, peers: NetworkPeers) -> None:
        await self._line.tell("set_peers", peers=peers)

    async def peers(self) -> dict[NetworkId, PeersInForce]:
        return await self._line.ask("peers", dict[NetworkId, PeersInForce])

    async def set_guards(self, guards: NetworkGuards) -> None:
        await self._line.tell("set_guards", guards=guards)

    async def guards(self) -> dict[NetworkId, PeersInForce]:
        return await self._line.ask("guards", dict[NetworkId, PeersInForce])

    async def set_virtual_ips(self, told: NetworkVirtualIps) -> None:
        await self._line.tell("set_virtual_ips", told=told)

    async def virtual_ips(self) -> dict[NetworkId, PeersInForce]:
        return await self._line.ask("virtual_ips", dict[NetworkId, PeersInForce])

    async def networks(self) -> set[NetworkId]:
        return await self._line.ask("networks", set[NetworkId])

    async def ports(self) -> set[PortId]:
        return await self._line.ask("ports", set[PortId])

    async def sandboxes(self) -> set[ReplicaId]:
        return await self._line.ask("sandboxes", set[ReplicaId])

    async def published(self) -> dict[ServiceId, ServicePublications]:
        return await self._line.ask("published", dict[ServiceId, ServicePublications])

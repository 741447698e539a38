"""The overlays of all networks of the host: made, brought up to date, and checked.

Whoever calls holds the lock of the network.  What was programmed last is remembered, so that one port more
among ten thousand costs one message; after a restart, and to heal, the kernel is read instead.
"""

from collections.abc import Set
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec

from skep.model.host import NetworkConfig, PortConfig
from skep.model.ids import NetworkId
from skep.providers.local.network import links, netlink, nft, overlay
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.naming import BRIDGE, OVERLAY, router_address, router_address6
from skep.providers.local.network.netlink import Forwarding, Way
from skep.providers.local.network.nft import Table
from skep.providers.local.network.rules.overlay import overlay_table
from skep.providers.local.network.rules.router import Far


class Programmed(msgspec.Struct, frozen=True):
    """What one network should have in the kernel."""

    table: Table
    forwarding: Forwarding


class Overlays:
    def __init__(self, host: HostSide) -> None:
        self._host = host
        self._state = host.state
        self._namespaces = host.namespaces
        self._programmed: dict[NetworkId, Programmed] = {}

    async def build(self, network: NetworkConfig, router: Path) -> None:
        """Make the device unless it is as it should be; without an underlay there is none."""
        underlay, mtu = self._host.underlay, self._host.mtu
        if underlay is not None and await self._namespaces.inside(
            router, lambda: overlay.is_there(network, underlay, mtu)
        ):
            return
        self._programmed.pop(network.id, None)
        await self._namespaces.inside(router, lambda: links.delete(OVERLAY))
        if underlay is not None:
            await self._namespaces.on_host(lambda: overlay.make(network, underlay, router, mtu))
            await self._namespaces.inside(router, overlay.join)

    async def heal(self, network: NetworkConfig, router: Path) -> None:
        """Program what differs from what the kernel holds."""
        wanted = self._wanted(network)
        if wanted is None:
            return

        def heal() -> None:
            nft.reconcile((wanted.table,))
            netlink.change(OVERLAY, BRIDGE, netlink.read(OVERLAY, BRIDGE), wanted.forwarding)

        self._programmed.pop(network.id, None)
        await self._namespaces.inside(router, heal)
        self._programmed[network.id] = wanted

    async def update(self, network: NetworkConfig, router: Path) -> None:
        """Program what differs from what was programmed last."""
        before, wanted = self._programmed.pop(network.id, None), self._wanted(network)
        if before is None or wanted is None:
            return await self.heal(network, router)

        if before.table.chains != wanted.table.chains:
            return await self.heal(network, router)

        def update() -> None:
            if commands := nft.change_elements(wanted.table, before.table):
                nft.commit(commands)
            netlink.change(OVERLAY, BRIDGE, before.forwarding, wanted.forwarding)

        await self._namespaces.inside(router, update)
        self._programmed[network.id] = wanted
        return None

    async def is_whole(self, network: NetworkConfig, router: Path) -> bool:
        """Whether the device, the rules and every way are as they should be."""
        underlay, mtu = self._host.underlay, self._host.mtu
        wanted = self._programmed.get(network.id) or self._wanted(network)
        if underlay is None or wanted is None:
            return True
        return await self._namespaces.inside(
            router,
            lambda: (
                overlay.is_there(network, underlay, mtu)
                and nft.whole((wanted.table,))
                and netlink.read(OVERLAY, BRIDGE) == wanted.forwarding
            ),
        )

    async def remove(self, network: NetworkId, router: Path) -> None:
        """Before its namespace: the kernel would take its time, and the number would be taken until then."""
        self._programmed.pop(network, None)
        await self._namespaces.inside(router, lambda: links.delete(OVERLAY))

    def concerns(self, port: PortConfig) -> bool:
        """Whether the peers of its network know the port's address or MAC on another host."""
        peers = self._state.peers.get(port.network)
        return peers is not None and any(
            other.mac == port.mac.lower()
            or other.address == port.address
            or (other.address6 is not None and other.address6 == port.address6)
            for other in peers.ports
        )

    def far(self, network: NetworkConfig, targets: Set[IPv4Address | IPv6Address]) -> Far | None:
        """Which of the targets are on other hosts; None: this host has no others."""
        if self._host.underlay is None:
            return None
        away = {way.address for way in self._ways(network)} & targets if targets else set()
        own = self._host.underlay.address
        return Far(
            router_address(own),
            frozenset(one for one in away if isinstance(one, IPv4Address)),
            router_address6(own) if network.ipv6 else None,
            frozenset(one for one in away if isinstance(one, IPv6Address)),
        )

    def _wanted(self, network: NetworkConfig) -> Programmed | None:
        if self._host.underlay is None:
            return None
        found = self._ways(network)
        peers = self._state.peers.get(network.id)
        egress = peers.egress if peers else None
        table = overlay_table(network, self._host.underlay.address, found, egress)
        return Programmed(table, netlink.forwarding(found))

    def _ways(self, network: NetworkConfig) -> list[Way]:
        here = self._state.ports_on(network.id)
        return overlay.ways(self._state.peers.get(network.id), network, here)

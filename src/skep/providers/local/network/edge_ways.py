"""How the edge of the host reaches replicas: a port of the network's link address for each.

The router leads it there, in a table of its own; answers come back by connection tracking, and those of a
replica on another host as they do for what is published.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from ipaddress import IPv4Address

from skep.model.host import NetworkConfig
from skep.model.ids import NetworkId
from skep.providers.local.network import nft
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.namespaces import exists
from skep.providers.local.network.naming import UPLINK
from skep.providers.local.network.nft import Chain, Set, Table
from skep.providers.local.network.routers import Routers

TABLE = "skep_edge"
PORTS = range(20_000, 60_000)

Place = tuple[IPv4Address, int]
"""An address on the network, and the port there."""
Target = tuple[NetworkId, IPv4Address, int]


class EdgeWays:
    """All ways of the host.  The kernel alone remembers them: they are read from it after each start."""

    def __init__(self, host: HostSide, routers: Routers) -> None:
        self._host = host
        self._state = host.state
        self._namespaces = host.namespaces
        self._routers = routers

    async def adopt(self) -> None:
        """Know those that an earlier process has made: somebody may be led by them."""
        for network in tuple(self._state.networks.values()):
            path = self._routers.path(network.id)
            if not network.internal and exists(path):
                table = ways_table(self._host.link(network)[1], {})
                if ways := read_ways(await self._namespaces.inside(path, partial(nft.read, table))):
                    self._state.ways[network.id] = ways

    async def lead(self, targets: Iterable[Target], *, heal: bool = False) -> dict[Target, Place]:
        """Have these ways beside those that are there; answers where each begins.

        `heal`: look at the kernel, too.  A network that is not here, or has no way out, is left out.
        """
        wanted: dict[NetworkId, set[Place]] = {network: set() for network in self._state.ways if heal}
        for network, address, port in targets:
            wanted.setdefault(network, set()).add((address, port))
        found: dict[Target, Place] = {}
        for network, places in wanted.items():
            found |= await self._lead(network, places, heal)
        return found

    async def keep(self, beginnings: Collection[Place]) -> None:
        """End the ways that begin nowhere among these: nobody takes them any more."""
        for network in tuple(self._state.ways):
            async with self._routers.lock[network]:
                config, before = self._state.networks.get(network), self._state.ways.get(network, {})
                if config is None or not exists(self._routers.path(network)):
                    self._state.ways.pop(network, None)
                    continue
                link = self._host.link(config)[1]
                after = {place: port for place, port in before.items() if (link, port) in beginnings}
                if after != before:
                    await self._apply(config, after)

    def published(self) -> set[int]:
        """TCP ports of the host that lead to services."""
        published = [route.publication for route in self._state.routes()]
        return {one.published for one in published if one.protocol == "tcp" and one.addresses}

    async def _lead(self, network: NetworkId, places: set[Place], heal: bool) -> dict[Target, Place]:
        async with self._routers.lock[network]:
            config = self._state.networks.get(network)
            if config is None or config.internal or not exists(self._routers.path(network)):
                self._state.ways.pop(network, None)
                return {}
            before = self._state.ways.get(network, {})
            after = way_ports({*places, *before}, before, self._published(network))
            if heal or before != after:
                await self._apply(config, after)
            link = self._host.link(config)[1]
            return {(network, *place): (link, after[place]) for place in places}

    async def _apply(self, network: NetworkConfig, ways: Mapping[Place, int]) -> None:
        """Back from other hosts before there, so that no answer goes astray."""
        if ways:
            self._state.ways[network.id] = dict(ways)
        else:
            self._state.ways.pop(network.id, None)
        await self._routers.apply_rules(network)
        table = ways_table(self._host.link(network)[1], ways)
        await self._namespaces.inside(self._routers.path(network.id), lambda: nft.reconcile((table,)))

    def _published(self, network: NetworkId) -> set[int]:
        return {route.link_port for route in self._state.routes_to(network)}


def way_ports(places: Collection[Place], before: Mapping[Place, int], taken: set[int]) -> dict[Place, int]:
    """What each had; a new one gets a number that follows from what it is, so mostly the same ever again."""
    chosen = {place: port for place, port in before.items() if place in places}
    used = taken | set(chosen.values())
    for place in sorted(set(places) - chosen.keys()):
        port = _number(place)
        while port in used:
            port = PORTS[(port + 1 - PORTS.start) % len(PORTS)]
        used.add(port)
        chosen[place] = port
    return chosen


def ways_table(link: IPv4Address, ways: Mapping[Place, int]) -> Table:
    elements = {str(port): f"{address} . {target}" for (address, target), port in ways.items()}
    return Table(
        family="inet",
        name=TABLE,
        sets=(Set("ways", "map", "type inet_service : ipv4_addr . inet_service;", elements),),
        chains=(
            Chain(
                "arriving",
                (
                    f'iifname "{UPLINK}" ip daddr {link} tcp dport {PORTS.start}-{PORTS.stop - 1} '
                    "dnat ip to tcp dport map @ways",
                ),
                # Before what is published: whose numbers are others, but may be among these.
                "type nat hook prerouting priority dstnat - 5; policy accept;",
            ),
        ),
    )


def read_ways(found: nft.Found | None) -> dict[Place, int]:
    """What is in the table that the kernel holds."""
    elements = found.sets.get("ways", {}) if found is not None else {}
    pairs = ((int(port), where.split(" . ")) for port, where in elements.items())
    return {(IPv4Address(address), int(target)): port for port, (address, target) in pairs}


def _number(place: Place) -> int:
    digest = hashlib.sha256(f"{place[0]} {place[1]}".encode()).digest()
    return PORTS[int.from_bytes(digest[:4]) % len(PORTS)]

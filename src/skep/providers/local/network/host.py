"""The host's side of all networks: forwarding, the instance's nft table, what the uplinks need.

The table is ours alone and removed on teardown; tables of others are not touched.
"""

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Network, collapse_addresses
from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput
from skep.model.host import NetworkConfig
from skep.providers.local.network import addressing, egress, links, nft
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import Names, link_address6, link_addresses
from skep.providers.local.network.overlay import HEADERS, Underlay
from skep.providers.local.network.rules.host import Six, Tunnel, host_table
from skep.providers.local.network.rules.publications import Route, host_elements
from skep.providers.local.network.state import HostRecord, State

_FORWARDING, _FORWARDING6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"
_INTERFACES6 = Path("/proc/sys/net/ipv6/conf")


class HostSide:
    """What networks share on the host.  Hold `lock` while changing services in the state."""

    def __init__(
        self,
        names: Names,
        namespaces: Namespaces,
        state: State,
        link_pool: IPv4Network,
        private: tuple[IPv4Network, ...],
        underlay: Underlay | None = None,
        private6: tuple[IPv6Network, ...] = (),
    ) -> None:
        self.names = names
        self.namespaces = namespaces
        self.state = state
        self.lock = asyncio.Lock()
        self.mtu = 1500
        self._pool = link_pool
        self._private = private
        self._private6 = private6
        self.underlay = underlay
        self._confirmed: set[IPv4Address] = set()

    async def prepare(self) -> None:
        """Switch on forwarding, remembering what it was, and set the rules."""
        self.mtu = await self._find_mtu()
        before = await self.namespaces.on_host(lambda: Path("/proc/sys/net", _FORWARDING).read_text().strip())
        if self.state.host is None:
            await self.state.save_host(HostRecord(ip_forward=before))
        await self.namespaces.on_host(lambda: links.sysctl([(_FORWARDING, "1"), *links.CONNECTIONS]))
        await self.namespaces.on_host(links.raise_neighbour_limits)
        if self._dual:
            await self.forward_ipv6()
        await self.ensure()

    @property
    def _dual(self) -> bool:
        """Whether one of the networks here has IPv6, and a way out."""
        return any(known.ipv6 and not known.internal for known in self.state.networks.values())

    async def forward_ipv6(self) -> None:
        """Switch on forwarding of IPv6, remembering what it was."""
        async with self.lock:
            if (known := self.state.host) is not None and not known.ipv6_forward:
                before, hearing = await self.namespaces.on_host(_forwarding6)
                await self.state.save_host(
                    msgspec.structs.replace(known, ipv6_forward=before, accept_ra=hearing)
                )
            hearing = self.state.host.accept_ra if self.state.host else ()
            listening = [(f"ipv6/conf/{name}/accept_ra", "2") for name in hearing]
            await self.namespaces.on_host(lambda: links.sysctl([*listening, (_FORWARDING6, "1")]))

    async def _find_mtu(self) -> int:
        """What fits on the way out and, within the overlay's headers, between hosts.

        Raises InvalidInput: this host does not have the underlay's address.
        """
        outward = await self.namespaces.on_host(links.default_mtu)
        if (underlay := self.underlay) is None:
            return outward
        across = await self.namespaces.on_host(lambda: links.mtu_at(underlay.address))
        if across is None:
            raise InvalidInput(
                f"This host does not have {underlay.address}, which is to be its underlay address."
            )
        return min(outward, across - HEADERS)

    async def ensure(self) -> None:
        async with self.lock:
            await self.apply()

    async def apply(self) -> None:
        """Make the table and the egress addresses so; the caller holds the lock."""
        table = self._table()
        await self.namespaces.on_host(lambda: nft.reconcile((table,)))
        await self._hold_addresses()

    async def _hold_addresses(self) -> None:
        """What is held is on record before it is, so that nothing is held for ever."""
        record, known = self.state.host, self._egress()
        if record is None or not (known or record.egress):
            return
        due = [address for link, address in known.items() if link in self._confirmed]
        kept = await self.namespaces.on_host(lambda: egress.found(known.values()))
        wanted = tuple(sorted({*due, *kept}))
        both = tuple(sorted({*wanted, *record.egress}))
        if record.egress != both:
            await self.state.save_host(msgspec.structs.replace(record, egress=both))
        await self.namespaces.on_host(lambda: egress.hold(wanted, both))
        if both != wanted:
            await self.state.save_host(msgspec.structs.replace(record, egress=wanted))

    async def is_whole(self) -> bool:
        """Whether the table is as it should be; the caller holds the lock."""
        table, held = self._table(), tuple(self._egress().values())
        switches = [_FORWARDING, *([_FORWARDING6] if self._dual else [])]
        return await self.namespaces.on_host(
            lambda: (
                all(Path("/proc/sys/net", switch).read_text().strip() == "1" for switch in switches)
                and nft.whole((table,))
                and egress.holds(held)
            )
        )

    def confirm(self, network: NetworkConfig) -> None:
        """This process was told of the network: its egress address is still ours, if it was.

        After a boot it may be another host's by now, so it waits for that; one that is there is kept.
        """
        self._confirmed.add(self.link(network)[1])

    def _egress(self) -> dict[IPv4Address, IPv4Address]:
        """The egress addresses that this host has, by the link addresses of their networks."""
        return {
            self.link(network)[1]: peers.egress.address
            for key, peers in self.state.peers.items()
            if peers.egress is not None
            and peers.egress.here
            and (network := self.state.networks.get(key)) is not None
            and not network.internal
        }

    def link(self, network: NetworkConfig) -> tuple[IPv4Address, IPv4Address]:
        """The host's and the router's end of the network's uplink."""
        return link_addresses(self._pool, network.index)

    async def finish_uplink(self, network: NetworkConfig) -> None:
        """Address the host's end, which the router's namespace has made."""
        name, address = self.names.uplink(network.id), self.link(network)[0]

        def finish() -> None:
            links.sysctl(
                [
                    (f"ipv6/conf/{name}/disable_ipv6", "0" if network.ipv6 else "1"),
                    (f"ipv4/conf/{name}/forwarding", "1"),
                    (f"ipv4/conf/{name}/route_localnet", "1"),  # for clients that use 127.0.0.1:published
                    (f"ipv4/conf/{name}/send_redirects", "0"),
                ]
            )
            links.ip(f"address replace {address}/30 dev {name}", f"link set {name} up")
            if network.ipv6:
                addressing.allow_ipv6(name)
                links.ip(f"address replace {link_address6(address)}/126 dev {name} nodad")

        await self.namespaces.on_host(finish)

    def _table(self) -> nft.Table:
        known = self.state.networks
        routes = [
            (route, self.link(known[route.publication.network])[1])
            for route in self.state.routes()
            if route.publication.network in known
        ]
        return host_table(
            self.names.table,
            self.names.uplinks,
            self._pool,
            self._private,
            *host_elements(routes),
            self._tunnel(),
            self._egress(),
            self._six(routes) if self._dual else None,
        )

    def _six(self, routes: list[tuple[Route, IPv4Address]]) -> Six:
        chosen = [(route, link_address6(link)) for route, link in routes if route.publication.addresses6]
        return Six(*host_elements(chosen, 6), tuple(collapse_addresses(self._private6)))

    def _tunnel(self) -> Tunnel | None:
        if self.underlay is None:
            return None
        peers = (host for known in self.state.peers.values() for host in known.hosts)
        return Tunnel(self.underlay.port, frozenset(peers))


def _forwarding6() -> tuple[str, tuple[str, ...]]:
    """Whether this host forwards IPv6, and the interfaces that would cease to hear routers if it did."""
    hearing = [
        found.name
        for found in sorted(_INTERFACES6.iterdir())
        if (found / "accept_ra").read_text().strip() == "1"
    ]
    return Path("/proc/sys/net", _FORWARDING6).read_text().strip(), tuple(hearing)

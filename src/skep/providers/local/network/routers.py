"""The router namespaces: a bridge with the gateway's address, an uplink, rules and a resolver per network."""

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec

from skep.model.errors import Conflict, HostFailure, NotFound
from skep.model.host import (
    Egress,
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    PortConfig,
    RemotePort,
    must_be_news,
)
from skep.model.ids import NetworkId, ReplicaId
from skep.providers.local.network import addressing, egress, guards, links, netlink, nft, overlay
from skep.providers.local.network.directory import Directory
from skep.providers.local.network.dns import Resolver
from skep.providers.local.network.forward import Forwarder
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.locks import Locks
from skep.providers.local.network.namespaces import exists
from skep.providers.local.network.naming import BRIDGE, OVERLAY, UPLINK, bridge_end, gateway_mac
from skep.providers.local.network.overlays import Overlays
from skep.providers.local.network.rules.router import UNBRIDGED, Far, router_tables

_SETTINGS = (
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    # Frames between two ports are the bridge table's business; IP rules would drop them.
    (guards.BRIDGED, "0"),
    (guards.BRIDGED6, "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
)


class Routers:
    """All networks of the host.  Hold `lock[network]` while changing what belongs to the network."""

    def __init__(self, host: HostSide, forwarder: Forwarder) -> None:
        self.lock: Locks[NetworkId] = Locks()
        self._host = host
        self._forwarder = forwarder
        self._state = host.state
        self._namespaces = host.namespaces
        self._overlays = Overlays(host)
        self._directories: dict[NetworkId, Directory] = {}
        self._up_elsewhere: dict[NetworkId, frozenset[ReplicaId]] = {}
        self._resolvers: dict[NetworkId, Resolver] = {}

    async def adopt(self) -> None:
        """Serve names again on the networks that are there."""
        for network in self._state.networks.values():
            async with self.lock[network.id]:
                await self._adopt(network)

    async def close(self) -> None:
        for network in tuple(self._resolvers):
            await self._silence(network)

    def path(self, network: NetworkId) -> Path:
        return self._host.names.router(network)

    def known(self, network: NetworkId) -> NetworkConfig:
        """Raises NotFound: the network was never ensured on this host."""
        try:
            return self._state.networks[network]
        except KeyError:
            raise NotFound(f"This host has no network {network}; ensure it first.") from None

    def directory(self, network: NetworkId) -> Directory:
        """The names on the network, filled from the state when first asked for."""
        if network not in self._directories:
            directory = Directory(lambda replica: self._is_up(network, replica), self._elsewhere)
            self._directories[network] = directory
            self._tell_apart(network)
            for port in self._remote_ports(network).values():
                directory.add(port)
            for port in self._state.ports_on(network):
                directory.add(port)
            if network in self._state.virtual_ips:
                directory.lead(self._state.virtual_ips[network].virtual_ips)
        return self._directories[network]

    def _is_up(self, network: NetworkId, replica: ReplicaId) -> bool:
        if replica in self._state.sandboxes:
            return self._state.resolves(replica)
        return replica in self._up_elsewhere.get(network, ())

    def _remote_ports(self, network: NetworkId) -> dict[str, PortConfig]:
        peers = self._state.peers.get(network)
        return {port.id: _named(network, port) for port in peers.ports} if peers else {}

    def _tell_apart(self, network: NetworkId) -> None:
        """Note which replicas on other hosts are up."""
        peers = self._state.peers.get(network)
        ups = (port.replica for port in peers.ports if port.up) if peers else ()
        self._up_elsewhere[network] = frozenset(ups)

    def _elsewhere(self, port: PortConfig) -> list[tuple[Directory, IPv4Address]]:
        """The other networks that the port's replica is on, with its address there."""
        record = self._state.sandboxes.get(port.replica)
        return [
            (self.directory(other.network), other.address)
            for other in (record.ports if record else ())
            if other.network != port.network and other.network in self._state.networks
        ]

    async def ensure(self, network: NetworkConfig) -> None:
        """Make what is missing of the network; what lives is not touched."""
        self._refuse_equal_index(network)
        async with self.lock[network.id]:
            before = self._state.networks.get(network.id)
            if before is not None and _shape(before) != _shape(network):
                await self._remove(network.id)
            if before != network:
                await self._state.save_network(network)
            self._host.confirm(network)
            await self._host.ensure()
            await self._namespaces.create(self.path(network.id), lambda: links.sysctl(_SETTINGS))
            await self._leave_lost(network.id)
            if network.ipv6 and not network.internal:
                await self._host.forward_ipv6()
                await self._host.ensure()
            await self._build(network)
            await self._widen(network)
            await self.apply_rules(network)
            await self._guard(network)
            await self._overlays.heal(network, self.path(network.id))
            await self._serve(network)

    async def set_peers(self, peers: NetworkPeers) -> None:
        network = self.known(peers.network)
        overlay.check(peers, network, self._host.underlay)
        async with self.lock[network.id]:
            before = self._state.peers.get(network.id)
            must_be_news(f"the peers of network {network.id}", peers, before)
            far, named = self._far(network), self._remote_ports(network.id)
            await self._state.save_peers(peers)
            self._host.confirm(network)
            self._rename(network.id, named)
            leaving = before.egress if before else None
            if before is None or set(before.hosts) != set(peers.hosts) or leaving != peers.egress:
                await self._host.ensure()
            await self._redirect(network, far, heal=before is not None and before == peers)
            if leaving != peers.egress and exists(self.path(network.id)):
                await self.apply_rules(network)

    async def set_guards(self, told: NetworkGuards) -> None:
        network = self.known(told.network)
        guards.check(told)
        async with self.lock[network.id]:
            before = self._state.guards.get(network.id)
            must_be_news(f"the guards of network {network.id}", told, before)
            await self._state.save_guards(told)
            if exists(self.path(network.id)):
                await self._guard(network)

    async def _guard(self, network: NetworkConfig) -> None:
        """Where nothing is guarded, frames between ports are not looked at: that costs them nothing."""
        told = self._state.guards.get(network.id)
        await self._namespaces.inside(self.path(network.id), lambda: _make_guarded(told))

    async def changed_here(self, port: PortConfig) -> None:
        """The port was plugged or unplugged here: what peers say of it counts no more, or counts again.

        The caller holds the lock.
        """
        if not self._overlays.concerns(port):
            return
        network = self.known(port.network)
        for known in self._remote_ports(network.id).values():
            if known.address == port.address and self._state.owner(port.id) is None:
                self.directory(network.id).add(known)
        await self._redirect(network, None)

    async def _redirect(self, network: NetworkConfig, far: Far | None, *, heal: bool = False) -> None:
        path = self.path(network.id)
        if not exists(path) or not await self._namespaces.inside(path, lambda: links.there(OVERLAY)):
            return
        await (self._overlays.heal if heal else self._overlays.update)(network, path)
        if heal or far != self._far(network):
            await self.apply_rules(network)

    def _rename(self, network: NetworkId, before: dict[str, PortConfig]) -> None:
        """Let the resolver know the ports elsewhere as they are now; those here go first."""
        directory, after = self.directory(network), self._remote_ports(network)
        self._tell_apart(network)
        here = {port.address for port in self._state.ports_on(network)}
        for key, port in before.items():
            if after.get(key) != port and port.address not in here:
                directory.remove(port.address)
        for key, port in after.items():
            if before.get(key) != port and port.address not in here:
                directory.add(port)

    async def remove(self, network: NetworkId) -> None:
        """Remove the network with its record."""
        async with self.lock[network]:
            await self._remove(network)
            self._directories.pop(network, None)
            self._up_elsewhere.pop(network, None)
            had_peers = network in self._state.peers
            await self._state.drop_network(network)
            if had_peers:
                await self._host.ensure()

    async def apply_rules(self, network: NetworkConfig) -> None:
        """Set the rules for the ports and publications in the state; the caller holds the lock."""
        tables, leaving = self._tables(network), self._egress(network)

        def apply() -> None:
            if leaving is not None:
                egress.lead(leaving)
            _reconcile(tables)

        await self._namespaces.inside(self.path(network.id), apply)

    def _egress(self, network: NetworkConfig) -> Egress | None:
        peers = self._state.peers.get(network.id)
        return peers.egress if peers and not network.internal else None

    async def whole(self) -> set[NetworkId]:
        """The networks of which nothing is missing, on the host's side neither."""
        async with self._host.lock:
            if not await self._host.is_whole():
                return set()
        return {network for network in tuple(self._state.networks) if await self._checked(network)}

    async def _checked(self, network: NetworkId) -> bool:
        async with self.lock[network]:
            config = self._state.networks.get(network)
            return config is not None and await self.is_whole(config)

    async def is_whole(self, network: NetworkConfig) -> bool:
        """Whether nothing of the network is missing or altered; the caller holds the lock."""
        path, resolver = self.path(network.id), self._resolvers.get(network.id)
        if not exists(path) or resolver is None or not resolver.serves(path):
            return False
        tables, link = self._tables(network), self._host.link(network)
        name = self._host.names.uplink(network.id)
        mtu, told, leaving = self._host.mtu, self._state.guards.get(network.id), self._egress(network)
        inside = await self._namespaces.inside(
            path,
            lambda: (
                _bridged(network, mtu)
                and _guarded(told)
                and (network.internal or _linked(network, link[0], link[1], mtu))
                and nft.whole(tables())
                and (leaving is None or egress.leads(leaving))
            ),
        )
        inside = inside and await self._overlays.is_whole(network, path)
        if not inside or network.internal:
            return inside
        return await self._namespaces.on_host(lambda: links.is_up(name, link[0]))

    def _tables(self, network: NetworkConfig) -> Callable[[], tuple[nft.Table, ...]]:
        """Made in the router's namespace, where ports that lost their interface are none."""
        link, ports = self._host.link(network)[1], self._state.ports_on(network.id)
        routes = self._state.routes_to(network.id)
        far, leaving = self._far(network), self._egress(network)
        return lambda: (
            UNBRIDGED,
            *router_tables(network, link, _living(ports), routes, far, leaving),
        )

    def _far(self, network: NetworkConfig) -> Far | None:
        routes = self._state.routes_to(network.id)
        targets: set[IPv4Address | IPv6Address] = {
            address for address, _ in self._state.ways.get(network.id, {})
        }
        for route in routes:
            targets |= {*route.publication.addresses, *route.publication.addresses6}
        return self._overlays.far(network, targets)

    async def _adopt(self, network: NetworkConfig) -> None:
        path, mtu = self.path(network.id), self._host.mtu
        if exists(path) and await self._namespaces.inside(path, lambda: _bridged(network, mtu)):
            await self._overlays.build(network, path)
            await self.apply_rules(network)
            await self._guard(network)
            await self._overlays.heal(network, path)
            await self._serve(network)

    async def _build(self, network: NetworkConfig) -> None:
        path, mtu = self.path(network.id), self._host.mtu
        if not await self._namespaces.inside(path, lambda: _bridged(network, mtu)):
            await self._namespaces.inside(path, lambda: _make_bridge(network, mtu))
        await self._overlays.build(network, path)
        if not network.internal:
            await self._build_uplink(network, path, mtu)

    async def _widen(self, network: NetworkConfig) -> None:
        """Let what is plugged in already know the subnets that joined; nothing that runs is touched."""
        for port in self._state.ports_on(network.id) if network.more else ():
            sandbox, wanted = self._host.names.sandbox(port.replica), addressing.of_port(port, network)
            if exists(sandbox):
                await self._namespaces.inside(sandbox, partial(_widen, port.interface, wanted))

    async def _build_uplink(self, network: NetworkConfig, path: Path, mtu: int) -> None:
        link, name = self._host.link(network), self._host.names.uplink(network.id)
        host = self._namespaces.host_reference
        there = await self._namespaces.inside(path, lambda: _linked(network, link[0], link[1], mtu))
        if there and await self._namespaces.on_host(lambda: links.is_up(name, link[0])):
            return
        if not await self._namespaces.inside(path, lambda: links.is_up(UPLINK, link[1], mtu=mtu)):
            await self._namespaces.on_host(lambda: links.delete(name))
        if not await self._namespaces.on_host(lambda: links.is_up(name, link[0])):
            await self._namespaces.inside(path, lambda: _make_uplink(name, host, mtu))
        await self._host.finish_uplink(network)
        await self._namespaces.inside(path, lambda: _address_uplink(network, *link))

    async def _serve(self, network: NetworkConfig) -> None:
        path, resolver = self.path(network.id), self._resolvers.get(network.id)
        if resolver is not None and resolver.serves(path) and _shape(resolver.network) == _shape(network):
            resolver.network = network
            return
        await self._silence(network.id)
        fresh = Resolver(network, path, self.directory(network.id), self._namespaces, self._forwarder)
        self._resolvers[network.id] = await fresh.__aenter__()

    async def _leave_lost(self, network: NetworkId) -> None:
        """Sockets of the resolver keep a deleted router alive, and its overlay's number taken."""
        resolver = self._resolvers.get(network)
        if resolver is not None and not resolver.serves(self.path(network)):
            await self._silence(network)

    async def _silence(self, network: NetworkId) -> None:
        resolver = self._resolvers.pop(network, None)
        if resolver is not None:
            await resolver.__aexit__(None, None, None)

    async def _remove(self, network: NetworkId) -> None:
        await self._silence(network)
        name = self._host.names.uplink(network)
        await self._namespaces.on_host(lambda: links.delete(name))
        if exists(self.path(network)):
            await self._overlays.remove(network, self.path(network))
        await self._namespaces.remove(self.path(network))

    def _refuse_equal_index(self, network: NetworkConfig) -> None:
        self._host.link(network)
        for other in self._state.networks.values():
            if other.index == network.index and other.id != network.id:
                raise Conflict(f"Network {other.id} already has index {network.index} on this host.")


def _shape(network: NetworkConfig) -> NetworkConfig:
    """What cannot change under a living network."""
    return msgspec.structs.replace(network, name="", tenant="", more=(), ipv6=None)


def _named(network: NetworkId, port: RemotePort) -> PortConfig:
    """The port as the resolver knows it."""
    return PortConfig(
        id=port.id,
        network=network,
        replica=port.replica,
        address=port.address,
        mac=port.mac,
        app=port.app,
        names=port.names,
        address6=port.address6,
    )


# The functions below run inside the router namespace.


def _reconcile(tables: Callable[[], tuple[nft.Table, ...]]) -> None:
    """The kernel takes an interface away when it likes: also after it was found to be there."""
    wanted = tables()
    try:
        nft.reconcile(wanted)
    except HostFailure:
        if tables() == wanted:
            raise
        nft.reconcile(tables())


def _living(ports: Iterable[PortConfig]) -> list[PortConfig]:
    return [port for port in ports if links.there(bridge_end(port.id))]


def _bridged(network: NetworkConfig, mtu: int) -> bool:
    if not network.more and not network.ipv6:
        return links.is_up(BRIDGE, network.gateway, gateway_mac(network.id), mtu)
    known = addressing.of_bridge(network)
    return links.is_up(BRIDGE, None, gateway_mac(network.id), mtu) and addressing.has(known, BRIDGE)


def _make_guarded(told: NetworkGuards | None) -> None:
    """The rules first: when frames come to be looked at, they are there."""
    table = guards.guard_table(told) if told else None
    if table is not None and told and told.ports:
        nft.reconcile((table,))
        guards.look_at_frames(told)
        return
    links.sysctl([(guards.BRIDGED, "0"), (guards.BRIDGED6, "0")])
    if ("inet", guards.TABLE) in nft.tables():
        nft.commit(f"delete table inet {guards.TABLE}")


def _guarded(told: NetworkGuards | None) -> bool:
    if told is None or not told.ports:
        return not guards.frames_are_looked_at()
    return guards.frames_are_looked_at(told) and nft.whole((guards.guard_table(told),))


def _linked(network: NetworkConfig, host: IPv4Address, router: IPv4Address, mtu: int) -> bool:
    return (
        links.is_up(UPLINK, router, mtu=mtu)
        and (UPLINK, host) in links.default_routes()
        and (network.ipv6 is None or addressing.has(addressing.of_uplink(host, router), UPLINK))
    )


def _make_bridge(network: NetworkConfig, mtu: int) -> None:
    if not links.there(BRIDGE):
        links.ip(f"link add name {BRIDGE} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
    if network.ipv6:
        addressing.allow_ipv6(BRIDGE)
        links.sysctl([("ipv6/conf/all/forwarding", "1")])
    links.ip(
        "link set lo up",
        # Frames to the bridge's own addresses pass no rules: what they say of their sender is not believed.
        f"link set {BRIDGE} type bridge no_linklocal_learn 1",
        f"link set {BRIDGE} mtu {mtu} address {gateway_mac(network.id)}",
        *addressing.addressed(addressing.of_bridge(network), BRIDGE),
        f"link set {BRIDGE} up",
    )


def _make_uplink(name: str, host: str, mtu: int) -> None:
    links.delete(UPLINK)
    links.ip(f"link add name {UPLINK} mtu {mtu} type veth peer name {name} mtu {mtu} netns {host}")


def _address_uplink(network: NetworkConfig, host: IPv4Address, router: IPv4Address) -> None:
    links.ip(
        f"address replace {router}/30 dev {UPLINK}",
        f"link set {UPLINK} up",
        f"route replace default via {host} dev {UPLINK}",
    )
    if network.ipv6:
        addressing.allow_ipv6(UPLINK)
        wanted = addressing.of_uplink(host, router)
        links.ip(*addressing.addressed(wanted, UPLINK), *addressing.routed(wanted, UPLINK))
        netlink.await_up(UPLINK)


# Inside a sandbox.


def _widen(nic: str, wanted: addressing.Addressing) -> None:
    """A NIC that is missing is the business of who plugs it."""
    if links.there(nic) and not addressing.has(wanted, nic):
        links.ip(*addressing.addressed(wanted, nic), *addressing.routed(wanted, nic))

"""The replicas' network sandboxes and their NICs."""

import asyncio
import re
from pathlib import Path

import msgspec

from skep.model.errors import Conflict, InvalidInput
from skep.model.host import NetworkConfig, PortConfig
from skep.model.ids import NetworkId, PortId, ReplicaId
from skep.providers.local.network import addressing, links, netlink, nft
from skep.providers.local.network.balancing import Balancing
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.locks import Locks
from skep.providers.local.network.namespaces import exists
from skep.providers.local.network.naming import BRIDGE, bridge_end, gateway_mac
from skep.providers.local.network.routers import Routers
from skep.providers.local.network.rules.router import ROUTER, elements
from skep.providers.local.network.state import SandboxRecord

_SETTINGS = (
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
    # As the common engines have it: no need of privileges to ping or to listen on port 80 in a container.
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv4/ip_unprivileged_port_start", "0"),
)
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")


class Sandboxes:
    """All sandboxes of the host."""

    def __init__(self, host: HostSide, routers: Routers, balancing: Balancing) -> None:
        self._host = host
        self._state = host.state
        self._namespaces = host.namespaces
        self._routers = routers
        self._balancing = balancing
        self._lock: Locks[ReplicaId] = Locks()

    def path(self, replica: ReplicaId) -> Path:
        return self._host.names.sandbox(replica)

    async def plug(self, port: PortConfig) -> None:
        network = self._routers.known(port.network)
        _check(port, network)
        async with self._lock[port.replica]:
            before = self._known(port)
            if before is not None and before != port:
                await self._unplug(before)
            if before == port and await self._is_whole(port):
                if not await self._balancing.is_whole(port.replica):
                    await self._balancing.heal(port.replica)
                return
            await self._namespaces.create(self.path(port.replica), lambda: links.sysctl(_SETTINGS))
            await self._connect(port, network)

    async def unplug(self, port: PortId) -> None:
        replica = self._state.owner(port)
        if replica is None:
            return
        async with self._lock[replica]:
            found = next((p for p in self._record(replica).ports if p.id == port), None)
            if found is not None:
                await self._unplug(found)
                await self._balancing.follow(replica)

    async def remove(self, replica: ReplicaId) -> None:
        """The kernel deletes the NICs with the namespace, all at once; one by one takes 20 ms each."""
        async with self._lock[replica]:
            for port in self._record(replica).ports:
                await self._forbid(port)
            await self._namespaces.remove(self.path(replica))
            await self._state.drop_sandbox(replica)
            self._balancing.forget(replica)

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        """A replica without a sandbox has no names: nothing to do."""
        async with self._lock[replica]:
            record = self._state.sandboxes.get(replica)
            boot = self._state.boot if up else ""
            if record is not None and record.resolvable != boot:
                await self._state.save_sandbox(msgspec.structs.replace(record, resolvable=boot))

    async def whole_ports(self) -> set[PortId]:
        """The ports whose NIC, bridge end, permission to send and way to virtual IPs are all there."""
        networks = tuple(self._state.networks)
        joined = await asyncio.gather(*(self._joined(network) for network in networks))
        ends = dict(zip(networks, joined, strict=True))
        ports = [port for record in self._state.sandboxes.values() for port in record.ports]
        living = [p for p in ports if set(elements(p).values()) <= ends.get(p.network, set())]
        nics = await asyncio.gather(*(self._is_equipped(port) for port in living))
        return {port.id for port, has in zip(living, nics, strict=True) if has}

    async def forget(self, network: NetworkId) -> None:
        """Unplug every port of the network."""
        for port in self._state.ports_on(network):
            await self.unplug(port.id)

    def living(self) -> set[ReplicaId]:
        return {replica for replica in self._state.sandboxes if exists(self.path(replica))}

    def _record(self, replica: ReplicaId) -> SandboxRecord:
        return self._state.sandboxes.get(replica) or SandboxRecord(replica=replica)

    def _known(self, port: PortConfig) -> PortConfig | None:
        """The port as it was plugged before.  Raises Conflict: its id or its address is another's."""
        owner = self._state.owner(port.id)
        if owner not in (None, port.replica):
            raise Conflict(f"Port {port.id} is plugged into replica {owner}; unplug it first.")
        holder = self._routers.directory(port.network).at(port.address)
        if holder is not None and holder.id != port.id and self._state.owner(holder.id) is not None:
            raise Conflict(
                f"Address {port.address} is in use by port {holder.id} of replica {holder.replica}."
            )
        for other in self._state.ports_on(port.network) if port.address6 else ():
            if other.address6 == port.address6 and other.id != port.id:
                raise Conflict(f"Address {port.address6} is in use by port {other.id}.")
        return next((known for known in self._record(port.replica).ports if known.id == port.id), None)

    async def _connect(self, port: PortConfig, network: NetworkConfig) -> None:
        sandbox, mtu = self.path(port.replica), self._host.mtu
        router, end = self._routers.path(network.id), bridge_end(port.id)
        self._routers.directory(network.id).add(port)
        await self._namespaces.inside(sandbox, lambda: links.delete(port.interface))
        async with self._routers.lock[network.id]:
            await self._save(port.replica, port)
            await self._routers.changed_here(port)
            await self._namespaces.inside(router, lambda: _attach(port, end, sandbox, mtu))
        await self._namespaces.inside(sandbox, lambda: _configure(port, network))
        await self._balancing.heal(port.replica)
        await self._namespaces.inside(router, lambda: netlink.await_forwarding(end))
        if port.address6:
            await self._namespaces.inside(router, lambda: netlink.await_up(BRIDGE))
            await self._namespaces.inside(sandbox, lambda: netlink.await_up(port.interface))

    async def _unplug(self, port: PortConfig) -> None:
        router, end = self._routers.path(port.network), bridge_end(port.id)
        async with self._routers.lock[port.network]:  # nobody may permit again what is being taken away
            if exists(router):
                await self._namespaces.inside(router, lambda: _detach(port, end))
        if exists(self.path(port.replica)):
            await self._namespaces.inside(self.path(port.replica), lambda: links.delete(port.interface))
        await self._forbid(port)

    async def _forbid(self, port: PortConfig) -> None:
        """Take the port's permission to send, its record and its names away."""
        router = self._routers.path(port.network)
        async with self._routers.lock[port.network]:
            if exists(router):
                await self._namespaces.inside(router, lambda: _forget_member(port))
            await self._save(port.replica, None, without=port.id)
            self._routers.directory(port.network).remove(port.address)
            if port.network in self._state.networks:
                await self._routers.changed_here(port)

    async def _save(self, replica: ReplicaId, port: PortConfig | None, without: PortId | None = None) -> None:
        record = self._record(replica)
        gone = port.id if port else without
        ports = (*(known for known in record.ports if known.id != gone), *((port,) if port else ()))
        if ports != record.ports or replica not in self._state.sandboxes:
            await self._state.save_sandbox(msgspec.structs.replace(record, ports=ports))

    async def _is_whole(self, port: PortConfig) -> bool:
        joined = await self._joined(port.network)
        return set(elements(port).values()) <= joined and await self._has_nic(port)

    async def _joined(self, network: NetworkId) -> set[str]:
        """Which elements of `members` can send: their bridge end lives, and the rules know them."""
        router, known = self._routers.path(network), self._state.networks.get(network)
        if known is None or not exists(router):
            return set()
        async with self._routers.lock[network]:
            return await self._namespaces.inside(router, _senders)

    async def _is_equipped(self, port: PortConfig) -> bool:
        return await self._has_nic(port) and await self._balancing.is_whole(port.replica)

    async def _has_nic(self, port: PortConfig) -> bool:
        sandbox, network = self.path(port.replica), self._state.networks.get(port.network)
        mtu = self._host.mtu
        if network is None or not exists(sandbox):
            return False
        return await self._namespaces.inside(sandbox, lambda: _configured(port, network, mtu))


def _check(port: PortConfig, network: NetworkConfig) -> None:
    """Raises InvalidInput: the port does not fit its network."""
    if not _INTERFACE.fullmatch(port.interface) or port.interface == "lo":
        raise InvalidInput(f"{port.interface[:40]!r} cannot be the name of a NIC.")
    if not _MAC.fullmatch(port.mac.lower()):
        raise InvalidInput(f"{port.mac[:40]!r} is not the MAC address of one NIC.")
    if port.mac.lower() == gateway_mac(port.network):
        raise InvalidInput(f"MAC {port.mac} is that of the gateway.")
    if not network.fits(port.address):
        subnets = ", ".join(str(one.cidr) for one in network.subnets)
        raise InvalidInput(f"Address {port.address} is not free for a port of subnet {subnets}.")
    if port.address6 is not None and not network.fits6(port.address6):
        subnet = network.ipv6.cidr if network.ipv6 else "none of IPv6"
        raise InvalidInput(f"Address {port.address6} is not free for a port of subnet {subnet}.")


# Inside the router namespace.


def _attach(port: PortConfig, end: str, sandbox: Path, mtu: int) -> None:
    """Who may send is known by the number of the interface: so it may once it is there."""
    links.delete(end)
    links.ip(
        f"link add name {end} mtu {mtu} master {BRIDGE} up type veth"
        f" peer name {port.interface} address {port.mac} mtu {mtu} netns {sandbox}"
    )
    where, found, commands = f"bridge {ROUTER}", _members(), []
    for name, element in elements(port).items():
        stale = [one for one in found.get(name, ()) if one.split(" . ")[1:] == element.split(" . ")[1:]]
        commands += [nft.delete_element(where, name, one) for one in stale]
        commands.append(nft.add_element(where, name, {element: ""}))
    nft.commit("\n".join(commands))


def _detach(port: PortConfig, end: str) -> None:
    """First the permission, which without its interface would have no name any more."""
    _forget_member(port)
    links.delete(end)


def _forget_member(port: PortConfig) -> None:
    where, found = f"bridge {ROUTER}", _members()
    gone = [(name, one) for name, one in elements(port).items() if one in found.get(name, ())]
    if gone:
        nft.commit("\n".join(nft.delete_element(where, name, one) for name, one in gone))


def _members() -> dict[str, nft.Elements]:
    """By set."""
    found = nft.read(nft.Table("bridge", ROUTER, (), ()))
    return found.sets if found else {}


def _senders() -> set[str]:
    ends = links.bridge_members(BRIDGE)
    every = [element for known in _members().values() for element in known]
    return {element for element in every if element.split(" . ")[0] in ends}


# Inside the sandbox.


def _configure(port: PortConfig, network: NetworkConfig) -> None:
    wanted = addressing.of_port(port, network)
    if port.address6:
        addressing.allow_ipv6(port.interface, link_local=False)
    links.ip(
        "link set lo up",
        *addressing.addressed(wanted, port.interface),
        f"link set {port.interface} up",
        *addressing.routed(wanted, port.interface),
    )


def _configured(port: PortConfig, network: NetworkConfig, mtu: int) -> bool:
    wanted = addressing.of_port(port, network)
    if (network.more or port.address6) and not addressing.has(wanted, port.interface):
        return False
    home = network.home(port.address)
    route = (port.interface, home.gateway if home else network.gateway)
    return links.is_up(port.interface, port.address, port.mac, mtu) and (
        not port.default_route or route in links.default_routes()
    )

"""Several hosts on one underlay: each a world of its own, joined by a bridge or by a router."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tests.providers.network.conftest import QUICK, World, inside, new_world, shell

from skep.model.host import NetworkConfig, NetworkPeers, PortConfig, RemotePort
from skep.providers.local.network import LocalFabric, Underlay
from skep.providers.local.network.naming import NETNS, Names

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _ALWAYS = 10, 23, 2
"""ip(7): never cut a packet, set DF."""


class Site:
    """One host: its world, its fabric, and what is plugged there."""

    def __init__(self, world: World, address: IPv4Address) -> None:
        self.world = world
        self.address = address
        self.plugged: list[PortConfig] = []
        self.fabric: LocalFabric
        self._open = AsyncExitStack()

    async def start(self) -> None:
        self.fabric = await self._open.enter_async_context(self.world.open(Underlay(self.address)))

    async def stop(self) -> None:
        await self._open.aclose()

    async def plug(self, port: PortConfig) -> PortConfig:
        await self.fabric.plug(port)
        self.plugged.append(port)
        await self.fabric.set_resolvable(port.replica, True)
        return port

    async def unplug(self, port: PortConfig) -> None:
        await self.fabric.remove_sandbox(port.replica)
        self.plugged.remove(port)

    def sandbox(self, port: PortConfig) -> Path:
        return self.fabric.sandbox(port.replica)

    def router(self, network: NetworkConfig) -> Path:
        return Names(self.world.instance).router(network.id)


class Hosts:
    """All hosts; `tell` plays control: every host gets to know what is plugged on the others."""

    def __init__(self, sites: list[Site]) -> None:
        self.sites = sites
        self.generation = 0

    async def ensure(self, network: NetworkConfig) -> None:
        for site in self.sites:
            await site.fabric.ensure_network(network)
        await self.tell(network)

    async def tell(self, network: NetworkConfig) -> None:
        self.generation += 1
        for site in self.sites:
            await site.fabric.set_peers(self.peers(network, site))

    def peers(self, network: NetworkConfig, of: Site) -> NetworkPeers:
        others = [site for site in self.sites if site is not of]
        return NetworkPeers(
            network=network.id,
            generation=self.generation,
            hosts=tuple(site.address for site in others),
            ports=tuple(
                remote(port, site.address)
                for site in others
                for port in site.plugged
                if port.network == network.id
            ),
        )


def remote(port: PortConfig, underlay: IPv4Address, *, up: bool = True) -> RemotePort:
    return RemotePort(
        id=port.id,
        replica=port.replica,
        address=port.address,
        mac=port.mac,
        underlay=underlay,
        app=port.app,
        names=port.names,
        up=up,
        address6=port.address6,
    )


@asynccontextmanager
async def hosts(data: Path, count: int, *, routed: bool = False, mtu: int = 1500) -> AsyncIterator[Hosts]:
    """`routed`: every host is in a subnet of its own, and a router is between them."""
    async with AsyncExitStack() as stack:
        sites = []
        for number in range(count):
            directory = data / str(number)
            directory.mkdir()
            world = await stack.enter_async_context(new_world(directory))
            sites.append(Site(world, IPv4Address("198.51.100.0") + 4 * number + 1))
        between = NETNS / f"{sites[0].world.instance}u"
        stack.callback(subprocess.run, ["ip", "netns", "delete", between.name], capture_output=True)
        _join(between, sites, routed, mtu)
        await _joined(sites)
        for site in sites:
            await site.start()
            stack.push_async_callback(site.stop)
        yield Hosts(sites)


def _join(between: Path, sites: Iterable[Site], routed: bool, mtu: int) -> None:
    shell("ip", "netns", "add", between.name)
    inside(between, "ip", "link", "set", "lo", "up")
    inside(between, "ip", "link", "add", "under", "mtu", str(mtu), "type", "bridge")
    inside(between, "ip", "link", "set", "under", "up")
    if routed:
        inside(between, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    for number, site in enumerate(sites):
        host, port = site.world.host, f"h{number}"
        ends = ["under", "mtu", str(mtu), "type", "veth", "peer", "name", port, "mtu", str(mtu)]
        inside(host, "ip", "link", "add", *ends, "netns", between.name)
        inside(host, "ip", "address", "add", f"{site.address}/{30 if routed else 24}", "dev", "under")
        inside(host, "ip", "link", "set", "under", "up")
        inside(host, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        inside(between, "ip", "link", "set", port, "up")
        if routed:
            inside(between, "ip", "address", "add", f"{site.address + 1}/30", "dev", port)
            inside(host, "ip", "route", "add", "198.51.100.0/24", "via", str(site.address + 1))
        else:
            inside(between, "ip", "link", "set", port, "master", "under")


async def _joined(sites: list[Site]) -> None:
    """The kernel takes its time to find that a fresh cable is plugged in."""
    for site in sites:
        for other in sites:
            async with asyncio.timeout(10):
                while not await ping(site, site.world.host, other.address):
                    pass


async def ping(site: Site, where: Path, address: IPv4Address | IPv6Address, size: int = 56) -> bool:
    """Whether an echo of `size` bytes that nobody may cut comes back."""
    six = address.version == 6

    def opened() -> socket.socket:
        family, kind = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        made = socket.socket(family, socket.SOCK_DGRAM, kind)
        made.setblocking(False)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _ALWAYS)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _ALWAYS)
        made.connect((str(address), 0))
        return made

    loop = asyncio.get_running_loop()
    with await site.world.namespaces.inside(where, opened) as mouth:
        try:
            async with asyncio.timeout(QUICK):
                await loop.sock_sendall(
                    mouth, struct.pack("!BBHHH", 128 if six else 8, 0, 0, 0, 1) + bytes(size)
                )
                return len(await loop.sock_recv(mouth, 65_535)) == 8 + size
        except (TimeoutError, OSError):
            return False

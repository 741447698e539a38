"""A small world of namespaces: a host of its own, an outside client, and what runs in sandboxes."""

import asyncio
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from skep.model.host import HostSubnet6, NetworkConfig, PortConfig, Publication, ServicePublications
from skep.model.ids import NetworkId, PortId, ReplicaId, ServiceId, TenantId, new_id
from skep.providers.local.network import LocalFabric, Underlay, teardown
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import NETNS

HOST, CLIENT = "192.0.2.1", "192.0.2.2"
HOST6, CLIENT6 = "2001:db8::1", "2001:db8::2"
QUICK = 0.6


class World:
    """`host` is a namespace that plays the machine; `client` is beyond its default route."""

    def __init__(self, data: Path, namespaces: Namespaces, instance: str) -> None:
        self.data = data
        self.namespaces = namespaces
        self.instance = instance
        self.host = NETNS / f"{instance}h"
        self.client = NETNS / f"{instance}c"
        self._stack = AsyncExitStack()

    def open(self, underlay: Underlay | None = None, private6: tuple[IPv6Network, ...] = ()) -> LocalFabric:
        return LocalFabric(
            instance=self.instance,
            data=self.data,
            link_pool=IPv4Network("100.66.0.0/16"),
            upstream_dns=(CLIENT,),
            host=self.host,
            underlay=underlay,
            private6=private6,
        )

    async def socket(
        self, where: Path, kind: socket.SocketKind, bind: tuple[str, int] | None, *, six_too: bool = False
    ) -> socket.socket:
        def make() -> socket.socket:
            six = six_too or (bind is not None and ":" in bind[0])
            made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
            made.setblocking(False)
            if bind:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(bind)
            return made

        return await self.namespaces.inside(where, make)

    async def serve(self, where: Path, port: int, name: str, address: str = "0.0.0.0") -> None:
        """Answer every connection with the name and the address it came from."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{name} {writer.get_extra_info('peername')[0]}".encode())
            writer.close()

        listener = await self.socket(where, socket.SOCK_STREAM, (address, port))
        server = await asyncio.start_server(answer, sock=listener)
        self._stack.callback(server.close)

    async def ask(self, where: Path, address: str, port: int, patience: float = QUICK) -> str:
        """What a server says; "refused" or "silence" when there is none."""
        loop = asyncio.get_running_loop()
        with await self.socket(where, socket.SOCK_STREAM, None, six_too=":" in address) as client:
            try:
                async with asyncio.timeout(patience):
                    await loop.sock_connect(client, (address, port))
                    return (await loop.sock_recv(client, 100)).decode()
            except TimeoutError:
                return "silence"
            except OSError:
                return "refused"

    async def query(self, where: Path, server: str, packet: bytes) -> bytes | None:
        loop = asyncio.get_running_loop()
        with await self.socket(where, socket.SOCK_DGRAM, None) as client:
            client.connect((server, 53))
            await loop.sock_sendall(client, packet)
            try:
                async with asyncio.timeout(QUICK):
                    return await loop.sock_recv(client, 65535)
            except TimeoutError:
                return None

    async def close(self) -> None:
        await self._stack.aclose()


def shell(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def inside(where: Path, *command: str) -> str:
    return shell("ip", "netns", "exec", where.name, *command)


@asynccontextmanager
async def _namespaces(instance: str) -> AsyncIterator[None]:
    host, client = f"{instance}h", f"{instance}c"
    try:
        for name in (host, client):
            shell("ip", "netns", "add", name)
            shell("ip", "-n", name, "link", "set", "lo", "up")
        shell("ip", "-n", host, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", client)
        for name, nic, address in ((host, "out", HOST), (client, "in", CLIENT)):
            shell("ip", "-n", name, "address", "add", f"{address}/24", "dev", nic)
            six = HOST6 if name == host else CLIENT6
            shell("ip", "-n", name, "address", "add", f"{six}/64", "dev", nic, "nodad")
            shell("ip", "-n", name, "link", "set", nic, "up")
        for name, nic in ((host, "out"), (client, "in")):  # asked, the kernel notices the cable at once
            shell("ip", "-n", name, "link", "show", "dev", nic)
        shell("ip", "-n", host, "route", "add", "default", "via", CLIENT)
        shell("ip", "-n", host, "-6", "route", "add", "default", "via", CLIENT6)
        yield
    finally:
        for name in (host, client):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with new_world(tmp_path) as made:
        yield made


@asynccontextmanager
async def new_world(tmp_path: Path) -> AsyncIterator[World]:
    instance = f"nt{secrets.token_hex(3)}"
    async with _namespaces(instance), Namespaces(NETNS / f"{instance}h") as namespaces:
        made = World(tmp_path, namespaces, instance)
        try:
            yield made
        finally:
            await made.close()
            await teardown(instance, tmp_path, purge=True, host=made.host)


@pytest.fixture
async def fabric(world: World) -> AsyncIterator[LocalFabric]:
    async with world.open() as opened:
        yield opened


def network(index: int = 1, subnet: str = "10.1.0.0/24", *, internal: bool = False) -> NetworkConfig:
    space = IPv4Network(subnet)
    return NetworkConfig(
        id=NetworkId(new_id()),
        tenant=TenantId(new_id()),
        name="default",
        subnet=space,
        gateway=space[1],
        index=index,
        internal=internal,
    )


def port(
    on: NetworkConfig, number: int, app: str = "shop", names: tuple[str, ...] = (), interface: str = "eth0"
) -> PortConfig:
    return PortConfig(
        id=PortId(new_id()),
        network=on.id,
        replica=ReplicaId(new_id()),
        address=on.subnet[number],
        mac=f"02:aa:00:00:{on.index:02x}:{number:02x}",
        app=app,
        names=names,
        interface=interface,
    )


def dual(net: NetworkConfig, cidr: str = "fd00:1::/64") -> NetworkConfig:
    """The network with IPv6 beside."""
    space = IPv6Network(cidr)
    return msgspec.structs.replace(net, ipv6=HostSubnet6(cidr=space, gateway=space[1]))


def dual_port(
    on: NetworkConfig, number: int, app: str = "shop", names: tuple[str, ...] = (), interface: str = "eth0"
) -> PortConfig:
    assert on.ipv6
    made = port(on, number, app, names, interface)
    return msgspec.structs.replace(made, address6=on.ipv6.cidr[number])


def publications(
    on: NetworkConfig,
    published: int,
    target: int,
    addresses: tuple[IPv4Address, ...],
    host_ip: str = "0.0.0.0",
    protocol: Literal["tcp", "udp"] = "tcp",
    service: ServiceId | None = None,
    addresses6: tuple[IPv6Address, ...] = (),
) -> ServicePublications:
    item = Publication(
        host_ip=host_ip,
        published=published,
        protocol=protocol,
        network=on.id,
        target=target,
        addresses=addresses,
        addresses6=addresses6,
    )
    return ServicePublications(service=service or ServiceId(new_id()), publications=(item,))

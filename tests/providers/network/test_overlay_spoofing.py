"""What comes through the overlay is what control said is there; nobody else gets in."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.providers.network.conftest import CLIENT, HOST, World, network, port
from tests.providers.network.hosts import Hosts, Site, hosts
from tests.providers.network.test_spoofing import arp_frame, ip_frame, ipv6_frame

from skep.model.host import NetworkConfig, PortConfig
from skep.providers.local.network.naming import gateway_mac, router_mac

pytestmark = pytest.mark.root

STRANGER = "02:ee:00:00:00:01"


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Hosts]:
    """Three hosts; the network is on the first two only."""
    async with hosts(tmp_path, 3) as made:
        yield made


class Target:
    """A victim on one host, a peer of it on the other, and what arrives at the victim."""

    def __init__(
        self, net: NetworkConfig, near: Site, far: Site, victim: PortConfig, peer: PortConfig
    ) -> None:
        self.net, self.near, self.far = net, near, far
        self.victim, self.peer = victim, peer

    async def hears(self, frame: bytes, where: Path, nic: str) -> bool:
        """Whether the frame, sent through the NIC, arrives."""

        def mouth() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
                made.bind((nic, 0))
                made.send(frame)

        async with _ear(self.near.world, self.near.sandbox(self.victim), frame) as heard:
            await self.near.world.namespaces.inside(where, mouth)
            return await heard

    async def hears_tunnelled(self, frame: bytes, where: Path, to: str = "") -> bool:
        """Whether the frame arrives that somebody wraps and sends to the victim's host."""
        wrapped = struct.pack("!BxxxI", 0x08, self.net.index << 8) + frame
        async with _ear(self.near.world, self.near.sandbox(self.victim), frame) as heard:
            with await self.near.world.socket(where, socket.SOCK_DGRAM, None) as sender:
                sender.sendto(wrapped, (to or str(self.near.address), 4789))
            return await heard


class _ear:  # noqa: N801 - used as a function
    def __init__(self, world: World, where: Path, frame: bytes) -> None:
        self._world, self._where, self._frame = world, where, frame

    async def __aenter__(self) -> "asyncio.Task[bool]":
        def opened() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            made.bind(("eth0", 0))
            made.setblocking(False)
            return made

        self._socket = await self._world.namespaces.inside(self._where, opened)
        return asyncio.create_task(self._listen())

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def _listen(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(0.2):
                while (await loop.sock_recv(self._socket, 2000))[: len(self._frame)] != self._frame:
                    pass
        except TimeoutError:
            return False
        return True


@pytest.fixture
async def target(three: Hosts) -> Target:
    net = network()
    outsider = three.sites.pop()
    await three.ensure(net)
    near, far = three.sites
    victim, peer = await near.plug(port(net, 5)), await far.plug(port(net, 6))
    await three.tell(net)
    three.sites.append(outsider)
    return Target(net, near, far, victim, peer)


async def test_a_host_cannot_send_in_the_name_of_what_it_does_not_have(target: Target) -> None:
    net, victim, peer = target.net, target.victim, target.peer
    gateway, third, theirs = str(net.gateway), str(net.subnet[7]), str(peer.address)
    fakes = {
        "an address nobody has": ip_frame(peer.mac, third, victim),
        "a MAC nobody has": ip_frame(STRANGER, theirs, victim),
        "the victim's own": ip_frame(victim.mac, str(victim.address), victim),
        "the gateway's address": ip_frame(peer.mac, gateway, victim),
        "the gateway's MAC": ip_frame(gateway_mac(net.id), gateway, victim),
        "the world through the gateway": ip_frame(gateway_mac(net.id), CLIENT, victim),
        "the world through a router": ip_frame(router_mac(net.id, target.far.address), CLIENT, victim),
        "ARP for a peer": arp_frame(peer.mac, peer.mac, theirs, victim),
        "ARP for the gateway": arp_frame(peer.mac, peer.mac, gateway, victim),
        "IPv6": ipv6_frame(peer.mac),
        "a broadcast": b"\xff" * 6 + ip_frame(peer.mac, theirs, victim)[6:],
    }
    where = target.far.router(net)

    assert await target.hears(ip_frame(peer.mac, theirs, victim), where, "vx0")
    passed = [name for name, frame in fakes.items() if await target.hears(frame, where, "vx0")]

    assert passed == []


async def test_the_gateway_of_another_host_cannot_be_used(target: Target) -> None:
    """A frame to the gateway's MAC, or to the router's but to another address, goes no further."""
    net, peer = target.net, target.peer
    outside = PortConfig(
        id=peer.id,
        network=net.id,
        replica=peer.replica,
        address=IPv4Address(CLIENT),
        mac=gateway_mac(net.id),
        app="",
    )
    by_router = ip_frame(
        peer.mac,
        str(peer.address),
        PortConfig(
            id=peer.id,
            network=net.id,
            replica=peer.replica,
            address=IPv4Address(CLIENT),
            mac=router_mac(net.id, target.near.address),
            app="",
        ),
    )
    frames = [ip_frame(peer.mac, str(peer.address), outside), by_router]
    loop = asyncio.get_running_loop()

    def send(frame: bytes) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind(("vx0", 0))
            made.send(frame)

    with await target.near.world.socket(target.near.world.client, socket.SOCK_DGRAM, (CLIENT, 2000)) as world:
        for frame in frames:
            await target.near.world.namespaces.inside(target.far.router(net), partial(send, frame))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await loop.sock_recv(world, 100)


async def test_packets_of_a_machine_that_is_no_peer_are_dropped(three: Hosts, target: Target) -> None:
    frame = ip_frame(target.peer.mac, str(target.peer.address), target.victim)
    outsider = three.sites[2]

    assert not await target.hears_tunnelled(frame, outsider.world.host)
    assert not await target.hears_tunnelled(frame, target.near.world.client, HOST)
    # The same packet from a host that is one arrives: it is the sender that counts.
    assert await target.hears_tunnelled(frame, target.far.world.host)


async def test_no_replica_can_speak_to_the_underlay(three: Hosts, target: Target) -> None:
    frame = ip_frame(target.peer.mac, str(target.peer.address), target.victim)
    await target.near.world.serve(target.near.world.host, 9000, "host")

    assert not await target.hears_tunnelled(frame, target.far.sandbox(target.peer))
    assert not await target.hears_tunnelled(frame, target.near.sandbox(target.victim))
    where = target.far.sandbox(target.peer)
    assert await target.near.world.ask(target.far.world.host, str(target.near.address), 9000) != "silence"
    assert await target.near.world.ask(where, str(target.near.address), 9000) == "silence"

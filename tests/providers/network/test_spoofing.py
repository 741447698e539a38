"""A replica cannot pretend to be another."""

import asyncio
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.providers.network.conftest import World, inside, network, port

from skep.model.host import PortConfig
from skep.providers.local.network import LocalFabric
from skep.providers.local.network.naming import Names

pytestmark = pytest.mark.root

BROADCAST = b"\xff" * 6


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ip_frame(source_mac: str, source: str, victim: PortConfig, sport: int = 1000, dport: int = 2000) -> bytes:
    """A UDP datagram to the victim; checksum 0 means none (RFC 768), the IP header's is right."""
    payload = struct.pack("!HHHH", sport, dport, 12, 0) + b"fake"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0)
    head += IPv4Address(source).packed + victim.address.packed
    total = sum(struct.unpack("!10H", head))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return (
        mac(victim.mac)
        + mac(source_mac)
        + b"\x08\x00"
        + head[:10]
        + struct.pack("!H", check)
        + head[12:]
        + payload
    )


def arp_frame(source_mac: str, claims_mac: str, claims: str, victim: PortConfig) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac(claims_mac) + IPv4Address(claims).packed
    return BROADCAST + mac(source_mac) + b"\x08\x06" + body + mac(victim.mac) + victim.address.packed


def ipv6_frame(source_mac: str) -> bytes:
    return mac("33:33:00:00:00:01") + mac(source_mac) + b"\x86\xdd" + b"\x60" + b"\0" * 59


class Wire:
    """Sends raw frames from one sandbox and sees what arrives in another."""

    def __init__(self, world: World, sender: Path, receiver: Path) -> None:
        self.world, self.sender, self.receiver = world, sender, receiver

    async def arrives(self, frame: bytes) -> bool:
        def opened() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            made.bind(("eth0", 0))
            made.setblocking(False)
            return made

        loop = asyncio.get_running_loop()
        with (
            await self.world.namespaces.inside(self.receiver, opened) as ear,
            await self.world.namespaces.inside(self.sender, opened) as mouth,
        ):
            mouth.send(frame)
            try:
                async with asyncio.timeout(0.15):
                    while (await loop.sock_recv(ear, 2000))[: len(frame)] != frame:
                        pass
            except TimeoutError:
                return False
            return True


async def test_only_a_ports_own_address_and_mac_pass(world: World, fabric: LocalFabric) -> None:
    net = network()
    liar, victim, third = port(net, 5), port(net, 6), port(net, 7)
    await fabric.ensure_network(net)
    for one in (liar, victim, third):
        await fabric.plug(one)
    wire = Wire(world, fabric.sandbox(liar.replica), fabric.sandbox(victim.replica))
    own, gateway = str(liar.address), str(net.gateway)
    fakes = {
        "another's address": ip_frame(liar.mac, str(third.address), victim),
        "another's MAC": ip_frame(third.mac, own, victim),
        "another's both": ip_frame(third.mac, str(third.address), victim),
        "the gateway's address": ip_frame(liar.mac, gateway, victim),
        "ARP for the gateway": arp_frame(liar.mac, liar.mac, gateway, victim),
        "ARP for another": arp_frame(liar.mac, liar.mac, str(third.address), victim),
        "ARP with another's MAC inside": arp_frame(liar.mac, third.mac, own, victim),
        "a DHCP server's answer": ip_frame(liar.mac, own, victim, 67, 68),
        "IPv6": ipv6_frame(liar.mac),
    }

    assert await wire.arrives(ip_frame(liar.mac, own, victim))
    assert await wire.arrives(arp_frame(liar.mac, liar.mac, own, victim))
    passed = [name for name, frame in fakes.items() if await wire.arrives(frame)]

    assert passed == []
    # Without the rules the same frames arrive: it is the rules that stop them.
    inside(Names(world.instance).router(net.id), "nft", "delete", "table", "bridge", "skep")
    stopped = [name for name, frame in fakes.items() if not await wire.arrives(frame)]
    assert stopped == []

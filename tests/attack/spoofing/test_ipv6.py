"""IPv6 frames that pretend: neighbours, routers and servers that a container is not."""

import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Network

import msgspec
import pytest
from tests.attack import frames as f
from tests.attack.prison import Prison, Prisoner
from tests.attack.spoofing.test_frames import BRIDGE_RULES, Forged, Wire
from tests.attack.tenants import Tenants

from skep.model.host import HostSubnet6, NetworkConfig, PortConfig
from skep.model.ids import PortId, ReplicaId, new_id
from skep.providers.local.network.naming import gateway_mac

pytestmark = pytest.mark.root

SPACE = IPv6Network("fd00:1::/64")
ALL, ALL_MAC = "ff02::1", "33:33:00:00:00:01"
LINK_LOCAL = "fe80::5"


class Dual(msgspec.Struct, frozen=True):
    """A network of both families with the attacker, its victim, and a third whose name is taken in vain."""

    net: NetworkConfig
    port: PortConfig
    victim: PortConfig
    third: PortConfig
    prisoner: Prisoner


@pytest.fixture(scope="module")
def dual(prison: Prison, tenants: Tenants) -> Dual:
    plain = prison.network(6, "10.6.0.0/24")
    net = msgspec.structs.replace(plain, ipv6=HostSubnet6(cidr=SPACE, gateway=SPACE[1]))
    prison.wait(prison.fabric.ensure_network(net))
    port, victim, third = (_plug(prison, net, number) for number in (5, 6, 7))
    return Dual(net=net, port=port, victim=victim, third=third, prisoner=prison.admit_to(port))


def _plug(prison: Prison, net: NetworkConfig, number: int) -> PortConfig:
    port = PortConfig(
        id=PortId(new_id()),
        network=net.id,
        replica=ReplicaId(new_id()),
        address=net.subnet[number],
        mac=f"02:aa:00:00:06:{number:02x}",
        app="shop",
        address6=SPACE[number],
    )
    prison.wait(prison.fabric.plug(port))
    return port


@pytest.fixture(scope="module")
def wire(prison: Prison, tenants: Tenants, dual: Dual) -> Wire:
    attacker = msgspec.structs.replace(
        tenants, ours=dual.net, port=dual.port, victim=dual.victim, third=dual.third, prisoner=dual.prisoner
    )
    return Wire(prison, attacker)


def forgeries(d: Dual) -> dict[str, Callable[[], Forged]]:
    me, victim, third, gateway = (str(SPACE[number]) for number in (5, 6, 7, 1))
    mine = d.port.mac

    def ip(
        source: str, following: int, body: bytes, target: str = victim, sender: str = mine
    ) -> Callable[[], Forged]:
        made = f.packet6(source, target, following, body)
        to = ALL_MAC if target == ALL else d.victim.mac
        return lambda: (f.frame(to, sender, f.IPV6, made), made)

    def said(source: str, body: bytes, target: str = victim, sender: str = mine) -> Callable[[], Forged]:
        return ip(source, socket.IPPROTO_ICMPV6, body, target, sender)

    def whole(made: bytes) -> Callable[[], Forged]:
        return lambda: (f.frame(d.victim.mac, mine, f.IPV6, made), made)

    for_gateway = f.advertise(me, victim, gateway, mine)
    announced = bytes([64, 0, 0x07, 0x08]) + bytes(8)
    return {
        "address-of-another": whole(f.datagram6(third, victim, 1000, 2000)),
        "mac-of-another": lambda: (
            f.frame(d.victim.mac, d.third.mac, f.IPV6, f.datagram6(me, victim, 1000, 2000)),
            f.datagram6(me, victim, 1000, 2000),
        ),
        "address-of-the-gateway": whole(f.datagram6(gateway, victim, 1000, 2000)),
        "link-local-address": whole(f.datagram6(LINK_LOCAL, victim, 1000, 2000)),
        "no-address": said("::", f.solicit("::", ALL, third), ALL),
        "neighbour-that-is-the-gateway": said(me, for_gateway),
        "neighbour-that-is-another": said(me, f.advertise(me, victim, third, mine)),
        "neighbour-in-anothers-name": said(third, f.advertise(third, victim, third, mine)),
        "neighbour-with-anothers-mac": said(me, f.advertise(me, victim, me, d.third.mac)),
        "neighbour-with-two-macs": said(me, f.advertise(me, victim, me, mine, gateway_mac(d.net.id))),
        "neighbour-announced-to-all": said(me, f.advertise(me, ALL, gateway, mine), ALL),
        "neighbour-behind-options": ip(me, 0, bytes([58, 0, 1, 4, 0, 0, 0, 0]) + for_gateway),
        "neighbour-in-a-fragment": ip(me, 44, struct.pack("!BBHI", 58, 0, 1, 7) + for_gateway),
        "question-with-anothers-mac": said(me, f.solicit(me, victim, victim, d.third.mac)),
        "router": said(me, f.message6(me, ALL, 134, announced), ALL),
        "router-of-the-link": said(LINK_LOCAL, f.message6(LINK_LOCAL, ALL, 134, announced), ALL),
        "router-behind-options": ip(
            me, 0, bytes([58, 0, 1, 4, 0, 0, 0, 0]) + f.message6(me, ALL, 134, announced), ALL
        ),
        "redirect": said(me, f.message6(me, victim, 137, bytes(4) + SPACE[5].packed + SPACE[7].packed)),
        "question-for-routers": said(me, f.message6(me, ALL, 133, bytes(4)), ALL),
        "question-for-listeners": said(me, f.message6(me, ALL, 130, bytes(20)), ALL),
        "answer-of-a-dhcp-server": whole(f.datagram6(me, victim, 547, 546)),
    }


NAMES = (
    "address-of-another",
    "mac-of-another",
    "address-of-the-gateway",
    "link-local-address",
    "no-address",
    "neighbour-that-is-the-gateway",
    "neighbour-that-is-another",
    "neighbour-in-anothers-name",
    "neighbour-with-anothers-mac",
    "neighbour-with-two-macs",
    "neighbour-announced-to-all",
    "neighbour-behind-options",
    "neighbour-in-a-fragment",
    "question-with-anothers-mac",
    "router",
    "router-of-the-link",
    "router-behind-options",
    "redirect",
    "question-for-routers",
    "question-for-listeners",
    "answer-of-a-dhcp-server",
)


def test_honest_ipv6_arrives(dual: Dual, wire: Wire) -> None:
    me, victim, mine = str(SPACE[5]), str(SPACE[6]), dual.port.mac
    for body in (
        f.packet6(me, victim, socket.IPPROTO_ICMPV6, f.advertise(me, victim, me, mine)),
        f.packet6(me, victim, socket.IPPROTO_ICMPV6, f.advertise(me, victim, me)),
        f.packet6(me, victim, socket.IPPROTO_ICMPV6, f.solicit(me, victim, victim, mine)),
        f.packet6(me, victim, socket.IPPROTO_ICMPV6, f.message6(me, victim, 128, bytes(8))),
        f.datagram6(me, victim, 1000, 2000, b"honest"),
    ):
        assert wire.arrives(f.frame(dual.victim.mac, mine, f.IPV6, body), body)
    assert set(forgeries(dual)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_forged_ipv6_frame_does_not_arrive(dual: Dual, wire: Wire, name: str) -> None:
    assert not wire.arrives(*forgeries(dual)[name]())


@pytest.mark.parametrize("name", NAMES)
def test_ipv6_arrives_without_the_rules_of_the_bridge(
    prison: Prison, dual: Dual, wire: Wire, name: str
) -> None:
    with prison.without_table(prison.router(dual.net), BRIDGE_RULES):
        assert wire.arrives(*forgeries(dual)[name]())

"""Frames that pretend: none of them reaches a neighbour, and without the bridge's rules all of them do."""

import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.attack import frames as f
from tests.attack.prison import METADATA, Prison
from tests.attack.tenants import Tenants

from skep.providers.local.network.naming import bridge_end, gateway_mac

pytestmark = pytest.mark.root
BRIDGE_RULES = "bridge skep"


class Wire:
    """Sends frames out of the prisoner's container and sees what arrives elsewhere."""

    def __init__(self, prison: Prison, tenants: Tenants) -> None:
        self.prison, self.tenants = prison, tenants

    def arrives(self, frame: bytes, mark: bytes, where: Path | None = None, nic: str = "eth0") -> bool:
        ear = self.prison.inside(where or self.prison.sandbox(self.tenants.victim), lambda: self._ear(nic))
        with ear:
            sent = self.tenants.prisoner.attack("/attack/network", "frames", "eth0", frame.hex())
            assert sent.won, sent
            return self._hears(ear, mark)

    @staticmethod
    def _ear(nic: str) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        made.bind((nic, 0))
        return made

    @staticmethod
    def _hears(ear: socket.socket, mark: bytes) -> bool:
        end = time.monotonic() + 0.15
        while (left := end - time.monotonic()) > 0:
            ear.settimeout(left)
            try:
                if mark in ear.recv(2000):
                    return True
            except TimeoutError:
                return False
        return False


@pytest.fixture(scope="module")
def wire(prison: Prison, tenants: Tenants) -> Wire:
    return Wire(prison, tenants)


Forged = tuple[bytes, bytes]
"""A frame, and what tells it from any other."""


def forgeries(t: Tenants) -> dict[str, Callable[[], Forged]]:
    me, my_mac, gateway = str(t.port.address), t.port.mac, str(t.ours.gateway)
    victim, third = str(t.victim.address), str(t.third.address)

    def ip(sender: str, body: bytes, to: str = t.victim.mac) -> Callable[[], Forged]:
        return lambda: (f.frame(to, sender, f.IP, body), body)

    def arp(body: bytes, sender: str = my_mac, to: str = t.victim.mac) -> Callable[[], Forged]:
        return lambda: (f.frame(to, sender, f.ARP, body), body)

    def other(
        kind: int, body: bytes, to: str = t.victim.mac, mark: bytes = b"forged"
    ) -> Callable[[], Forged]:
        return lambda: (f.frame(to, my_mac, kind, body), mark)

    advertised, neighbour = f.icmp6(134), f.icmp6(136)
    return {
        "address-of-another": ip(my_mac, f.datagram(third, victim)),
        "mac-of-another": ip(t.third.mac, f.datagram(me, victim)),
        "address-and-mac-of-another": ip(t.third.mac, f.datagram(third, victim)),
        "address-of-the-gateway": ip(my_mac, f.datagram(gateway, victim)),
        "address-and-mac-of-the-gateway": ip(gateway_mac(t.ours.id), f.datagram(gateway, victim)),
        "no-address": ip(my_mac, f.datagram("0.0.0.0", "255.255.255.255"), f.BROADCAST),
        "broadcast-in-anothers-name": ip(my_mac, f.datagram(third, "10.1.0.255"), f.BROADCAST),
        "multicast-in-anothers-name": ip(my_mac, f.datagram(third, "224.0.0.251"), "01:00:5e:00:00:fb"),
        "arp-reply-for-the-gateway": arp(f.arp(2, my_mac, my_mac, gateway, victim, t.victim.mac)),
        "gratuitous-arp-for-the-gateway": arp(f.arp(1, my_mac, my_mac, gateway, gateway), to=f.BROADCAST),
        "arp-reply-for-another": arp(f.arp(2, my_mac, my_mac, third, victim, t.victim.mac)),
        "arp-with-anothers-mac-inside": arp(f.arp(2, my_mac, t.third.mac, me, victim, t.victim.mac)),
        "arp-in-a-frame-of-another": arp(f.arp(2, my_mac, my_mac, me, victim), sender=t.third.mac),
        "answer-of-a-dhcp-server": ip(my_mac, f.datagram(me, victim, 67, 68)),
        "answer-of-a-dhcp-server-to-all": ip(my_mac, f.datagram(me, "255.255.255.255", 67, 68), f.BROADCAST),
        "dhcp-behind-ip-options": ip(my_mac, f.datagram(me, victim, 67, 68, options=b"\x01" * 8)),
        "answer-of-the-resolver": ip(my_mac, f.datagram(gateway, victim, 53, 40000)),
        "redirect-by-the-gateway": ip(my_mac, f.redirect(gateway, victim, me, METADATA)),
        "router-advertisement": other(f.IPV6, advertised, "33:33:00:00:00:01", advertised),
        "neighbour-advertisement": other(f.IPV6, neighbour, "33:33:00:00:00:01", neighbour),
        "vlan-tag": other(f.VLAN, f.tagged(f.VLAN, 1, f.IP, f.datagram(third, victim))),
        "vlan-of-priority": other(f.VLAN, f.tagged(f.VLAN, 0, f.IP, f.datagram(third, victim))),
        "two-vlan-tags": other(
            f.QINQ, f.tagged(f.QINQ, 5, f.VLAN, f.tagged(f.VLAN, 6, f.IP, f.datagram(third, victim)))
        ),
        "ip-behind-llc": other(80, f.encapsulated(f.datagram(third, victim))),
        "unknown-protocol": other(0x88CC, b"forged"),
        "spanning-tree": other(38, b"\x42\x42\x03forged", "01:80:c2:00:00:00"),
    }


NAMES = (
    "address-of-another",
    "mac-of-another",
    "address-and-mac-of-another",
    "address-of-the-gateway",
    "address-and-mac-of-the-gateway",
    "no-address",
    "broadcast-in-anothers-name",
    "multicast-in-anothers-name",
    "arp-reply-for-the-gateway",
    "gratuitous-arp-for-the-gateway",
    "arp-reply-for-another",
    "arp-with-anothers-mac-inside",
    "arp-in-a-frame-of-another",
    "answer-of-a-dhcp-server",
    "answer-of-a-dhcp-server-to-all",
    "dhcp-behind-ip-options",
    "answer-of-the-resolver",
    "redirect-by-the-gateway",
    "router-advertisement",
    "neighbour-advertisement",
    "vlan-tag",
    "vlan-of-priority",
    "two-vlan-tags",
    "ip-behind-llc",
    "unknown-protocol",
    "spanning-tree",
)


def test_honest_frames_arrive(tenants: Tenants, wire: Wire) -> None:
    me, victim = str(tenants.port.address), str(tenants.victim.address)
    body = f.datagram(me, victim, payload=b"honest")
    asked = f.arp(1, tenants.port.mac, tenants.port.mac, me, victim)

    assert wire.arrives(f.frame(tenants.victim.mac, tenants.port.mac, f.IP, body), body)
    assert wire.arrives(f.frame(f.BROADCAST, tenants.port.mac, f.ARP, asked), asked)
    assert set(forgeries(tenants)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_forged_frame_does_not_arrive(tenants: Tenants, wire: Wire, name: str) -> None:
    assert not wire.arrives(*forgeries(tenants)[name]())


@pytest.mark.parametrize("name", NAMES)
def test_it_arrives_without_the_rules_of_the_bridge(
    prison: Prison, tenants: Tenants, wire: Wire, name: str
) -> None:
    with prison.without_table(prison.router(tenants.ours), BRIDGE_RULES):
        assert wire.arrives(*forgeries(tenants)[name]())


# Frames to the addresses that a bridge keeps for itself (01:80:c2:00:00:0x) pass none of its rules.

RESERVED = ("01:80:c2:00:00:02", "01:80:c2:00:00:03", "01:80:c2:00:00:0e")


def holder(prison: Prison, tenants: Tenants) -> str:
    """To which port the bridge sends what is for the victim's MAC; "" when it was not told."""
    listed = prison.run_inside(prison.router(tenants.ours), "bridge", "fdb", "show", "br", "br0")
    rows = [line.split() for line in listed.splitlines() if "permanent" not in line]
    return next((row[2] for row in rows if row[0] == tenants.victim.mac), "")


def steal(tenants: Tenants, to: str) -> None:
    """Say in the victim's name that it is here."""
    frame = f.frame(to, tenants.victim.mac, 0x88CC, b"forged")
    assert tenants.prisoner.attack("/attack/network", "frames", "eth0", frame.hex()).won


@pytest.mark.parametrize("to", RESERVED)
def test_a_reserved_address_does_not_steal_the_traffic_of_another(
    prison: Prison, tenants: Tenants, to: str
) -> None:
    steal(tenants, to)

    assert holder(prison, tenants) != bridge_end(tenants.port.id)


@pytest.mark.parametrize("to", RESERVED)
def test_a_reserved_address_steals_where_the_bridge_learns_from_it(
    prison: Prison, tenants: Tenants, to: str
) -> None:
    with learning(prison, tenants):
        steal(tenants, to)

        assert holder(prison, tenants) == bridge_end(tenants.port.id)


@contextmanager
def learning(prison: Prison, tenants: Tenants) -> Any:
    """The bridge as it is by itself; afterwards as skep makes it, and it forgets."""
    router = prison.router(tenants.ours)
    switch = ("ip", "link", "set", "br0", "type", "bridge", "no_linklocal_learn")
    prison.run_inside(router, *switch, "0")
    try:
        yield
    finally:
        prison.run_inside(router, *switch, "1")
        prison.run_inside(router, "ip", "link", "set", "br0", "type", "bridge", "fdb_flush")


def neighbours(prison: Prison, tenants: Tenants) -> str:
    return prison.run_inside(prison.router(tenants.ours), "ip", "neigh", "show")


def ask_as_many(tenants: Tenants) -> None:
    """Ask for the gateway's MAC as forty different neighbours, past the bridge's rules."""
    body = f.arp(1, tenants.port.mac, tenants.port.mac, "10.1.0.100", str(tenants.ours.gateway))
    frame = f.frame(RESERVED[2], tenants.port.mac, f.ARP, body)
    assert tenants.prisoner.attack("/attack/network", "flood", "eth0", "28", "40", frame.hex()).won


def test_reserved_addresses_do_not_fill_the_machines_table_of_neighbours(
    prison: Prison, tenants: Tenants
) -> None:
    ask_as_many(tenants)

    assert "10.1.0.1" not in neighbours(prison, tenants).replace("10.1.0.1 ", "")


def test_reserved_addresses_fill_the_table_without_the_rules_for_arp(
    prison: Prison, tenants: Tenants
) -> None:
    with prison.without_table(prison.router(tenants.ours), "arp skep"):
        ask_as_many(tenants)

        assert neighbours(prison, tenants).count("lladdr") >= 40


def in_anothers_name(tenants: Tenants) -> Forged:
    """A question to the resolver as if the victim asked, in a frame that the bridge takes for its own."""
    asked = f.datagram(str(tenants.victim.address), str(tenants.ours.gateway), 999, 53, f.question("cache"))
    answer = tenants.third.address.packed
    return f.frame(RESERVED[2], tenants.port.mac, f.IP, asked), answer


def test_a_reserved_address_is_no_way_to_ask_in_anothers_name(tenants: Tenants, wire: Wire) -> None:
    assert not wire.arrives(*in_anothers_name(tenants))


def test_a_reserved_address_is_a_way_to_a_router_without_rules(
    prison: Prison, tenants: Tenants, wire: Wire
) -> None:
    with prison.without_table(prison.router(tenants.ours), "inet skep"):
        assert wire.arrives(*in_anothers_name(tenants))


def routed(prison: Prison, tenants: Tenants) -> Forged:
    """A packet that says itself which way it wants to go."""
    options = f.source_route(METADATA)
    body = f.datagram(str(tenants.port.address), str(tenants.ours.gateway), options=options)
    return f.frame(gateway_mac(tenants.ours.id), tenants.port.mac, f.IP, body), b"forged"


def test_a_packet_does_not_choose_its_own_way(prison: Prison, tenants: Tenants, wire: Wire) -> None:
    uplink = prison.names.uplink(tenants.ours.id)

    assert not wire.arrives(*routed(prison, tenants), prison.host, uplink)


def test_a_packet_chooses_its_way_where_routers_let_it(prison: Prison, tenants: Tenants, wire: Wire) -> None:
    router, uplink = prison.router(tenants.ours), prison.names.uplink(tenants.ours.id)
    switches = [f"net.ipv4.conf.{name}.accept_source_route" for name in ("all", "br0")]
    try:
        for switch in switches:
            prison.run_inside(router, "sysctl", "-qw", f"{switch}=1")
        assert wire.arrives(*routed(prison, tenants), prison.host, uplink)
    finally:
        for switch in switches:
            prison.run_inside(router, "sysctl", "-qw", f"{switch}=0")

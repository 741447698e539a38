"""Frames as bytes, honest and forged.  Formats: RFC 791, 826, 768, 4861, 8200; IEEE 802.1Q."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
ARP, IP, IPV6, VLAN, QINQ = 0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(to: str, sender: str, kind: int, body: bytes) -> bytes:
    return mac(to) + mac(sender) + struct.pack("!H", kind) + body.ljust(46, b"\0")


def arp(operation: int, sender: str, claims: str, address: str, target: str, target_mac: str = "") -> bytes:
    """An ARP body: `claims` is said to be the MAC of `address`."""
    head = struct.pack("!HHBBH", 1, IP, 6, 4, operation)
    known = mac(target_mac) if target_mac else b"\0" * 6
    return head + mac(claims) + IPv4Address(address).packed + known + IPv4Address(target).packed


def datagram(
    source: str, target: str, sport: int = 1000, dport: int = 2000, payload: bytes = b"forged", **more: bytes
) -> bytes:
    """A UDP datagram without checksum in an IP packet with a right one; `options` of IP may be given."""
    options = more.get("options", b"")
    body = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    return packet(source, target, socket.IPPROTO_UDP, body, options)


def packet(source: str, target: str, protocol: int, body: bytes, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 4 * words + len(body), 1, 0, 64, protocol, 0)
    head += IPv4Address(source).packed + IPv4Address(target).packed + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def source_route(*hops: str) -> bytes:
    """The option "loose source and record route", padded to whole words (RFC 791, section 3.1)."""
    addresses = b"".join(IPv4Address(hop).packed for hop in hops)
    return b"\x01" + struct.pack("!BBB", 131, 3 + len(addresses), 4) + addresses


def redirect(gateway: str, victim: str, better: str, about: str) -> bytes:
    """ICMP: `better` is the way to `about`, says the gateway (RFC 792)."""
    original = datagram(victim, about)[:28]
    body = struct.pack("!BBH", 5, 1, 0) + IPv4Address(better).packed + original
    return packet(
        gateway, victim, socket.IPPROTO_ICMP, body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    )


def tagged(kind: int, number: int, inner: int, body: bytes) -> bytes:
    """The body of a frame with a VLAN tag."""
    return struct.pack("!HH", number, inner) + body


def icmp6(kind: int) -> bytes:
    """An IPv6 packet to all nodes with an ICMPv6 message of the kind (134 router, 136 neighbour)."""
    body = struct.pack("!BBH", kind, 0, 0) + b"\x40\x00\x07\x08" + b"\0" * 16
    head = struct.pack("!IHBB", 0x60000000, len(body), socket.IPPROTO_ICMPV6, 255)
    return head + bytes.fromhex("fe80" + "0" * 27 + "5") + bytes.fromhex("ff02" + "0" * 27 + "1") + body


def encapsulated(body: bytes) -> bytes:
    """IP behind LLC and SNAP, for a frame with a length instead of a type (RFC 1042)."""
    return b"\xaa\xaa\x03\x00\x00\x00\x08\x00" + body


def checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def question(name: str) -> bytes:
    """A DNS question for an address (RFC 1035, section 4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def packet6(source: str, target: str, following: int, body: bytes, hops: int = 255) -> bytes:
    """An IPv6 packet; `following` says what the body is (RFC 8200)."""
    head = struct.pack("!IHBB", 0x60000000, len(body), following, hops)
    return head + IPv6Address(source).packed + IPv6Address(target).packed + body


def message6(source: str, target: str, kind: int, rest: bytes) -> bytes:
    """An ICMPv6 message with its right checksum (RFC 4443, section 2.3)."""
    body = struct.pack("!BBH", kind, 0, 0) + rest
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed
    pseudo += struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    return body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]


def advertise(source: str, target: str, about: str, *macs: str) -> bytes:
    """A neighbour advertisement: `about` has the MAC; asked for, and to be believed (RFC 4861, 4.4)."""
    options = b"".join(b"\x02\x01" + mac(one) for one in macs)
    return message6(source, target, 136, b"\x60\0\0\0" + IPv6Address(about).packed + options)


def solicit(source: str, target: str, about: str, own: str = "") -> bytes:
    options = b"\x01\x01" + mac(own) if own else b""
    return message6(source, target, 135, bytes(4) + IPv6Address(about).packed + options)


def datagram6(source: str, target: str, sport: int, dport: int, payload: bytes = b"forged") -> bytes:
    """A whole UDP packet over IPv6; the checksum, which it must have, is none that anybody asks here."""
    body = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0xBEEF) + payload
    return packet6(source, target, socket.IPPROTO_UDP, body)

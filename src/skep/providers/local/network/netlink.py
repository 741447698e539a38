"""What leaves through a VXLAN device, set and read by rtnetlink(7) in the calling thread's namespace.

`bridge -batch` waits for an answer to every line; here a thousand messages go in one call and only refusals
come back.  Layouts and numbers are those of linux/rtnetlink.h, neighbour.h and if_link.h.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

import msgspec

from skep.model.errors import HostFailure

_GET_LINK, _NEW_NEIGH, _DEL_NEIGH, _GET_NEIGH = 18, 28, 29, 30
_REQUEST, _ACK, _REPLACE, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x400, 0x300
_ERROR, _DONE = 2, 3
_SELF, _MASTER = 2, 4
_REACHABLE, _NOARP, _PERMANENT = 0x02, 0x40, 0x80
_DST, _LLADDR = 1, 2
_AF_BRIDGE = 7
_LINKINFO, _SLAVE_DATA, _STATE, _FORWARDING = 18, 5, 1, b"\3"
_OPERSTATE, _UP = 16, b"\6"
_CHUNK = 64
"""Messages in one call, so that the refusals to all of them fit into a socket's buffer."""

_HEADER = struct.Struct("=IHHII")
_NDMSG = struct.Struct("=BxxxiHBB")
_WITH_MAC = struct.Struct("=IHHII BxxxiHBB HH6sxx")
_WITH_BOTH = struct.Struct("=IHHII BxxxiHBB HH6sxx HH4s")
_WITH_ADDRESS = struct.Struct("=IHHII BxxxiHBB HH4s")
_WITH_BOTH6 = struct.Struct("=IHHII BxxxiHBB HH6sxx HH16s")
_WITH_ADDRESS6 = struct.Struct("=IHHII BxxxiHBB HH16s")


class Way(msgspec.Struct, frozen=True):
    """How an interface on another host is reached."""

    mac: str
    address: IPv4Address | IPv6Address
    underlay: IPv4Address


class Forwarding(msgspec.Struct):
    """What the bridge sends into the overlay, where the overlay sends it, and whom the router knows by MAC.

    Keys and values are MACs and addresses as bytes: there may be ten thousand.
    """

    bridged: set[bytes]
    tunnels: dict[bytes, bytes]
    neighbours: dict[bytes, bytes]


def forwarding(ways: Iterable[Way]) -> Forwarding:
    """What the kernel should hold for these ways."""
    known = [(bytes.fromhex(way.mac.replace(":", "")), way) for way in ways]
    return Forwarding(
        {mac for mac, _ in known},
        {mac: way.underlay.packed for mac, way in known},
        {way.address.packed: mac for mac, way in known},
    )


def read(overlay: str, bridge: str) -> Forwarding:
    """What the kernel holds."""
    through, on = socket.if_nametoindex(overlay), socket.if_nametoindex(bridge)
    found = Forwarding(set(), {}, {})
    for index, state, flags, mac, address in _neighbours(_AF_BRIDGE):
        if index == through and flags & _SELF:
            found.tunnels[mac] = address
        elif index == through and state & _NOARP:
            found.bridged.add(mac)
    for family in (socket.AF_INET, socket.AF_INET6):
        for index, state, _, mac, address in _neighbours(family):
            if index == on and state & _PERMANENT:
                found.neighbours[address] = mac
    return found


def change(overlay: str, bridge: str, have: Forwarding, want: Forwarding) -> None:
    """Turn what the kernel holds into what is wanted; what is equal is not touched.  Raises HostFailure."""
    through, on = socket.if_nametoindex(overlay), socket.if_nametoindex(bridge)
    _send(
        [
            *(_frames(_DEL_NEIGH, through, _MASTER, mac) for mac in have.bridged - want.bridged),
            *(_frames(_DEL_NEIGH, through, _SELF, mac) for mac in have.tunnels.keys() - want.tunnels.keys()),
            *(_forget(on, ip) for ip in have.neighbours.keys() - want.neighbours.keys()),
        ],
        well={errno.ENOENT},
    )
    _send(
        [
            *(_tunnel(through, mac, ip) for mac, ip in want.tunnels.items() if have.tunnels.get(mac) != ip),
            *(_frames(_NEW_NEIGH, through, _MASTER, mac) for mac in want.bridged - have.bridged),
            *(_know(on, ip, mac) for ip, mac in want.neighbours.items() if have.neighbours.get(ip) != mac),
        ]
    )


def _frames(kind: int, index: int, flags: int, mac: bytes) -> bytes:
    how = _REQUEST | (_CREATE | _REPLACE if kind == _NEW_NEIGH else 0)
    state = _NOARP | _REACHABLE  # for the bridge that is "static": known for good, and not its own
    return _WITH_MAC.pack(
        _WITH_MAC.size, kind, how, 0, 0, _AF_BRIDGE, index, state, flags, 0, 10, _LLADDR, mac
    )


def _tunnel(index: int, mac: bytes, underlay: bytes) -> bytes:
    head = (_WITH_BOTH.size, _NEW_NEIGH, _REQUEST | _CREATE | _REPLACE, 0, 0)
    entry = (_AF_BRIDGE, index, _NOARP | _REACHABLE, _SELF, 0)
    return _WITH_BOTH.pack(*head, *entry, 10, _LLADDR, mac, 8, _DST, underlay)


def _know(index: int, address: bytes, mac: bytes) -> bytes:
    form, family = (_WITH_BOTH, socket.AF_INET) if len(address) == 4 else (_WITH_BOTH6, socket.AF_INET6)
    head = (form.size, _NEW_NEIGH, _REQUEST | _CREATE | _REPLACE, 0, 0)
    entry = (family, index, _PERMANENT, 0, 0)
    return form.pack(*head, *entry, 10, _LLADDR, mac, 4 + len(address), _DST, address)


def _forget(index: int, address: bytes) -> bytes:
    form, family = (_WITH_ADDRESS, socket.AF_INET) if len(address) == 4 else (_WITH_ADDRESS6, socket.AF_INET6)
    head = (form.size, _DEL_NEIGH, _REQUEST, 0, 0)
    return form.pack(*head, family, index, 0, 0, 0, 4 + len(address), _DST, address)


def _send(messages: list[bytes], well: Iterable[int] = ()) -> None:
    """Each chunk's last message asks for an answer: what was refused before has been told by then."""
    with _opened() as channel:
        for start in range(0, len(messages), _CHUNK):
            *first, last = messages[start : start + _CHUNK]
            length, kind, flags, _, _ = _HEADER.unpack_from(last)
            asking = _HEADER.pack(length, kind, flags | _ACK, 1, 0) + last[_HEADER.size :]
            channel.send(b"".join(first) + asking)
            _await_last(channel, {0, *well})


def _await_last(channel: socket.socket, well: set[int]) -> None:
    while True:
        for kind, number, body in _messages(channel.recv(65_536)):
            code = -int.from_bytes(body[:4], sys.byteorder, signed=True) if kind == _ERROR else 0
            if code not in well:
                raise HostFailure(f"rtnetlink refused a forwarding entry: {os.strerror(code)}")
            if number == 1:
                return


def _neighbours(family: int) -> Iterator[tuple[int, int, int, bytes, bytes]]:
    """Interface, state, flags, MAC and address (b"" where there is none) of every entry."""
    for body in dump(_GET_NEIGH, _NDMSG.pack(family, 0, 0, 0, 0)):
        _, index, state, flags, _ = _NDMSG.unpack_from(body)
        found = attributes(body[_NDMSG.size :])
        yield index, state, flags, found.get(_LLADDR, b""), found.get(_DST, b"")


def dump(question: int, about: bytes) -> Iterator[bytes]:
    """The bodies of everything the kernel lists when asked so.  Raises HostFailure."""
    header = _HEADER.pack(_HEADER.size + len(about), question, _REQUEST | _DUMP, 1, 0)
    with _opened() as channel:
        channel.send(header + about)
        while True:
            for kind, _, body in _messages(channel.recv(65_536)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise HostFailure(f"rtnetlink does not answer question {question}.")
                yield body


def link(name: str) -> dict[int, bytes]:
    """The attributes (IFLA_*) of the interface; empty: there is none."""
    label = name.encode() + b"\0"
    wanted = struct.pack("=HH", 4 + len(label), 3) + label + b"\0" * (-len(label) % 4)  # IFLA_IFNAME
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + wanted
    with _opened() as channel:
        channel.send(_HEADER.pack(_HEADER.size + len(body), _GET_LINK, _REQUEST, 1, 0) + body)
        ((kind, _, answer), *_) = _messages(channel.recv(65_536))
    return {} if kind == _ERROR else attributes(answer[16:])


def await_forwarding(name: str) -> None:
    """Return once the bridge forwards what comes from this port of it, or after a second all the same.

    The kernel notices a cable by a job of its own; asking for the link hurries it (since 6.8).
    """
    end = time.monotonic() + 1
    while time.monotonic() < end:
        info = attributes(link(name).get(_LINKINFO, b""))
        if attributes(info.get(_SLAVE_DATA, b"")).get(_STATE) == _FORWARDING:
            return
        time.sleep(0.002)


def await_up(name: str) -> None:
    """Return once the kernel has noticed that the cable is plugged in, or after a second all the same.

    IPv4 does not care; IPv6 takes the interface into use only then.
    """
    end = time.monotonic() + 1
    while time.monotonic() < end:
        if link(name).get(_OPERSTATE) == _UP:
            return
        time.sleep(0.002)


def attributes(data: bytes) -> dict[int, bytes]:
    """A run of netlink attributes, by type."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)
    return found


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, at)
        yield kind, number, data[at + _HEADER.size : at + length]
        at += max(_HEADER.size, length + 3 & ~3)


def _opened() -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    channel.settimeout(30)
    return channel

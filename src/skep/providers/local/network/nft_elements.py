"""Elements of nftables' sets and maps, changed in one transaction by messages of our own.

libnftables reads all that a table holds before it changes one element: 5 ms where two hundred services are
balanced.  A change of what is behind one of them is told to every sandbox of a network, so it is encoded once
and sent to each: 0.1 ms.  Numbers are those of linux/netfilter/nf_tables.h.
"""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

from skep.providers.local.network import netfilter
from skep.providers.local.network.netfilter import attribute, message, nested, text
from skep.providers.local.network.netlink import attributes
from skep.providers.local.network.nft import Set, Table

_BEGIN, _END = 0x10, 0x11
_NFTABLES = 10
_NEW, _GET, _DELETE = (_NFTABLES << 8 | number for number in (12, 13, 14))  # NFT_MSG_*SETELEM
_GET_TABLE, _NAME = _NFTABLES << 8 | 1, 1
_INET = 1
_FAMILIES = {"inet": _INET, "arp": 3, "bridge": 7}
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _FLAGS, _VALUE = 1, 2, 3, 1
_INTERVAL_END = attribute(_FLAGS, struct.pack("!I", 1))
_AT_ONCE = 500
"""Elements of one message: a list of them holds 64 KiB."""


def changes(after: Table, before: Table) -> bytes:
    """What turns the elements of one table into those of another with the same sets; b"": nothing differs.

    Only for sets of addresses or numbers (32 bits), and maps of them to addresses.
    """
    there = {one.name: one.elements or {} for one in before.sets}
    parts = [part for one in after.sets if one.elements is not None for part in _parts(one, there[one.name])]
    if not parts:
        return b""
    family = _FAMILIES[after.family]
    *first, last = (
        (kind, text(_TABLE, after.name) + text(_SET, name) + nested(_ELEMENTS, *elements))
        for kind, name, elements in parts
    )
    return b"".join(
        (
            message(_BEGIN, 0, 0, resource=_NFTABLES),
            *(message(kind, netfilter.CREATE if kind == _NEW else 0, family, body) for kind, body in first),
            message(last[0], netfilter.ACK | (netfilter.CREATE if last[0] == _NEW else 0), family, last[1]),
            message(_END, 0, 0, resource=_NFTABLES),
        )
    )


def send(channel: socket.socket, batch: bytes) -> None:
    """Carry it out, all or nothing.  Raises HostFailure."""
    channel.send(batch)
    netfilter.acknowledged(channel)


def is_there(channel: socket.socket, table: str) -> bool:
    """Whether there is an inet table of this name."""
    channel.send(message(_GET_TABLE, netfilter.ACK, _INET, text(_NAME, table)))
    return netfilter.found(channel)


def keys(channel: socket.socket, table: str, name: str) -> list[bytes]:
    """The keys in a set of an inet table."""
    channel.send(message(_GET, netfilter.DUMP, _INET, text(_TABLE, table) + text(_SET, name)))
    return [
        attributes(attributes(element)[_KEY])[_VALUE]
        for body in netfilter.listed(channel)
        for element in _each(attributes(body).get(_ELEMENTS, b""))
    ]


def forget(channel: socket.socket, table: str, name: str, key: bytes) -> None:
    """Take the key out of the set of an inet table.  An absent one is success."""
    element = nested(_ELEMENT, nested(_KEY, attribute(_VALUE, key)))
    body = text(_TABLE, table) + text(_SET, name) + nested(_ELEMENTS, element)
    channel.send(
        message(_BEGIN, 0, 0, resource=_NFTABLES)
        + message(_DELETE, netfilter.ACK, _INET, body)
        + message(_END, 0, 0, resource=_NFTABLES)
    )
    netfilter.acknowledged(channel, absent_is_well=True)


def _each(data: bytes) -> Iterator[bytes]:
    """The bodies of a run of attributes of one type."""
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("=H", data, at)
        yield data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)


def _parts(wanted: Set, have: dict[str, str]) -> Iterator[tuple[int, str, list[bytes]]]:
    """First what goes, then what comes: intervals must not overlap."""
    want, ranges = wanted.elements or {}, "interval" in wanted.definition
    gone = [
        part for key, value in have.items() if want.get(key) != value for part in _element(key, "", ranges)
    ]
    new = [
        part for key, value in want.items() if have.get(key) != value for part in _element(key, value, ranges)
    ]
    for kind, elements in ((_DELETE, gone), (_NEW, new)):
        for start in range(0, len(elements), _AT_ONCE):
            yield kind, wanted.name, elements[start : start + _AT_ONCE]


def _element(key: str, value: str, ranges: bool) -> Iterator[bytes]:
    """An interval is two: where it begins, and the first number that is not in it."""
    first, _, last = key.partition("-")
    data = nested(_DATA, attribute(_VALUE, IPv4Address(value).packed)) if value else b""
    yield nested(_ELEMENT, nested(_KEY, attribute(_VALUE, _field(first))) + data)
    if ranges:
        after = (int(last or first) + 1).to_bytes(4)
        yield nested(_ELEMENT, _INTERVAL_END + nested(_KEY, attribute(_VALUE, after)))


def _field(written: str) -> bytes:
    return IPv4Address(written).packed if "." in written else int(written).to_bytes(4)

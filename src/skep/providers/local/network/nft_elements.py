"""Elements of nftables' sets and maps, changed in one transaction by messages of our own.

libnftables reads all that a table holds before it changes one element (5 ms where two hundred services are
balanced), and waits when it is done (8 ms).  A change of what is behind one of them is told to every sandbox
of a network, so it is encoded once and sent to each: 0.1 ms.  Numbers: linux/netfilter/nf_tables.h.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

import msgspec

from skep.providers.local.network import netfilter
from skep.providers.local.network.netfilter import attribute, message, nested, text
from skep.providers.local.network.netlink import attributes
from skep.providers.local.network.nft import Elements, Set, Table

_BEGIN, _END = 0x10, 0x11
_NFTABLES = 10
_NEW, _GET, _DELETE = (_NFTABLES << 8 | number for number in (12, 13, 14))  # NFT_MSG_*SETELEM
_GET_TABLE, _NAME = _NFTABLES << 8 | 1, 1
_INET = 1
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _FLAGS, _VALUE = 1, 2, 3, 1
_VERDICT, _CODE, _CHAIN, _GOTO = 2, 1, 2, struct.pack("!i", -4)
_INTERVAL_END = attribute(_FLAGS, struct.pack("!I", 1))
_AT_ONCE = 500
"""Elements of one message: a list of them holds 64 KiB."""


class Message(msgspec.Struct, frozen=True):
    """One change of an inet table."""

    kind: int
    flags: int
    body: bytes


def batch(messages: Sequence[Message]) -> bytes:
    """One transaction, which is answered when all is done."""
    *first, last = messages
    return b"".join(
        (
            message(_BEGIN, 0, 0, resource=_NFTABLES),
            *(message(one.kind, one.flags, _INET, one.body) for one in first),
            message(last.kind, last.flags | netfilter.ACK, _INET, last.body),
            message(_END, 0, 0, resource=_NFTABLES),
        )
    )


def removed(after: Table, before: Table) -> list[Message]:
    """What takes elements away that one table has and the other has not; sets that go are left alone.

    Only for sets of addresses or numbers (32 bits), and maps of them to addresses or chains.
    """
    wanted = {one.name: one.elements or {} for one in after.sets}
    return [
        found
        for one in before.sets
        if one.name in wanted and one.elements is not None
        for found in _portions(
            _DELETE, 0, after.name, one, _lacking(one.elements, wanted[one.name], keep=False)
        )
    ]


def added(after: Table, before: Table) -> list[Message]:
    """What adds elements; intervals must not overlap, so this comes after what was removed."""
    there = {one.name: one.elements or {} for one in before.sets}
    return [
        found
        for one in after.sets
        if one.elements is not None
        for found in _portions(
            _NEW,
            netfilter.CREATE,
            after.name,
            one,
            _lacking(one.elements, there.get(one.name, {}), keep=True),
        )
    ]


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
    channel.send(batch([Message(_DELETE, 0, body)]))
    netfilter.acknowledged(channel, absent_is_well=True)


def _each(data: bytes) -> Iterator[bytes]:
    """The bodies of a run of attributes of one type."""
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("=H", data, at)
        yield data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)


def _lacking(elements: Elements, other: Elements, *, keep: bool) -> Elements:
    """The elements that are not the same in the other; with their values if these are to `keep`."""
    return {key: value if keep else "" for key, value in elements.items() if other.get(key) != value}


def _portions(kind: int, flags: int, table: str, one: Set, elements: Elements) -> Iterator[Message]:
    ranges = "interval" in one.definition
    encoded = [part for key, value in elements.items() for part in _element(key, value, ranges)]
    for start in range(0, len(encoded), _AT_ONCE):
        listed = nested(_ELEMENTS, *encoded[start : start + _AT_ONCE])
        yield Message(kind, flags, text(_TABLE, table) + text(_SET, one.name) + listed)


def _element(key: str, value: str, ranges: bool) -> Iterator[bytes]:
    """An interval is two: where it begins, and the first number that is not in it."""
    first, _, last = key.partition("-")
    yield nested(_ELEMENT, nested(_KEY, attribute(_VALUE, _field(first))) + _data(value))
    if ranges:
        after = (int(last or first) + 1).to_bytes(4)
        yield nested(_ELEMENT, _INTERVAL_END + nested(_KEY, attribute(_VALUE, after)))


def _data(value: str) -> bytes:
    if not value:
        return b""
    if value.startswith("goto "):
        verdict = attribute(_CODE, _GOTO) + text(_CHAIN, value.removeprefix("goto "))
        return nested(_DATA, nested(_VERDICT, verdict))
    return nested(_DATA, attribute(_VALUE, IPv4Address(value).packed))


def _field(written: str) -> bytes:
    return IPv4Address(written).packed if "." in written else int(written).to_bytes(4)

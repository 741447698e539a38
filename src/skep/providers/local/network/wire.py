"""The usual question and its answer, in bytes (RFC 1035, section 4; EDNS: RFC 6891).  Pure.

One name of letters and digits, asked for its addresses: nearly all questions are so.  To read and write that
as objects costs far more (docs/decisions/0018); whatever else a packet holds is left to dnslib.
"""

import re
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import msgspec

A, AAAA = 1, 28
_IN, _OPT = 1, 41
_HEADER, _KIND, _EDNS = struct.Struct("!HHHHHH"), struct.Struct("!HH"), struct.Struct("!BHHBBHH")
_ANSWER, _AVAILABLE, _SAID, _TRUNCATED, _UNUSUAL = 0x8000, 0x0080, 0x0400, 0x0200, 0xF800
_MISSING = 3  # NXDOMAIN
_SAME_NAME = b"\xc0\x0c"
"""The name of the question, by its place in the packet."""
_NAME = re.compile(rb"[a-z0-9_.-]{1,253}")
_LEAST, _MOST = 512, 1232  # dnsflagday.net/2020


class Question(msgspec.Struct, frozen=True):
    """`text` is the question as it was asked; `limit` how long the answer may be; `edns`: asked with it."""

    id: int
    flags: int
    name: str
    kind: int
    text: bytes
    limit: int = _LEAST
    edns: bool = False


def question(packet: bytes) -> Question | None:
    """The usual question in the packet; None: it holds something else, or nothing."""
    if len(packet) < _HEADER.size + 5:
        return None
    number, flags, questions, *others, more = _HEADER.unpack_from(packet)
    if questions != 1 or any(others) or more > 1 or flags & (_UNUSUAL | _SAID | _TRUNCATED):
        return None
    name, end = _name(packet)
    if not name or len(packet) < end + _KIND.size:
        return None
    kind, family = _KIND.unpack_from(packet, end)
    end += _KIND.size
    if kind not in (A, AAAA) or family != _IN:
        return None
    found = Question(number, flags, name, kind, packet[_HEADER.size : end])
    return _with_edns(found, packet[end:]) if more else found if len(packet) == end else None


def _name(packet: bytes) -> tuple[str, int]:
    """The name in small letters, and where it ends; "": it is not usual."""
    at, labels = _HEADER.size, []
    while at < len(packet) and (length := packet[at]) != 0:
        if length > 63:
            return "", at
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
    name = b".".join(labels).lower()
    usual = at < len(packet) and _NAME.fullmatch(name) and not any(b"." in label for label in labels)
    return (name.decode() if usual and all(labels) else ""), at + 1


def _with_edns(found: Question, rest: bytes) -> Question | None:
    if len(rest) < _EDNS.size:
        return None
    root, kind, size, _, version, _, length = _EDNS.unpack_from(rest)
    if (root, kind, version) != (0, _OPT, 0) or len(rest) != _EDNS.size + length:
        return None
    return msgspec.structs.replace(found, edns=True, limit=max(_LEAST, min(_MOST, size)))


def answer(asked: Question, addresses: Iterable[IPv4Address | IPv6Address], ttl: int) -> bytes | None:
    """These addresses for the name; None: they are too many for a datagram."""
    records = [
        _SAME_NAME + struct.pack("!HHIH", asked.kind, _IN, ttl, len(one.packed)) + one.packed
        for one in addresses
    ]
    return _reply(asked, 0, records)


def missing(asked: Question) -> bytes | None:
    """There is no such name."""
    return _reply(asked, _MISSING, [])


def _reply(asked: Question, code: int, records: list[bytes]) -> bytes | None:
    flags = asked.flags & ~0xF | _ANSWER | _AVAILABLE | code
    head = _HEADER.pack(asked.id, flags, 1, len(records), 0, int(asked.edns))
    edns = _EDNS.pack(0, _OPT, _MOST, 0, 0, 0, 0) if asked.edns else b""
    packet = b"".join((head, asked.text, *records, edns))
    return packet if len(packet) <= asked.limit else None

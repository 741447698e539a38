"""What turns the table of virtual IPs in one sandbox into another, as messages (linux/netfilter/nf_tables.h).

Each virtual IP has a map of its own and a chain with one rule, which asks it; the messages are those that
libnftables sends for them (`virtual_ips.table`).
"""

import struct

from skep.providers.local.network.netfilter import CREATE, attribute, nested, text
from skep.providers.local.network.nft import Chain, Table
from skep.providers.local.network.nft_elements import Message, added, batch, removed
from skep.providers.local.network.virtual_ips import chain_name, map_name

_NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULES, _NEW_SET, _DELETE_SET = (
    10 << 8 | number for number in (3, 5, 6, 8, 9, 11)
)
_APPEND = 0x800
_TABLE, _NAME, _CHAIN_NAME = 1, 2, 3
_EXPRESSIONS, _EXPRESSION, _EXPRESSION_NAME, _EXPRESSION_DATA, _NOTES = 4, 1, 1, 2, 7
_INTERVALS_MAP, _MARK, _IPV4, _NUMBER = 0x4 | 0x8, 19, 7, 10
_SET_NOTES = 13, bytes.fromhex("000401000000 010402000000 060400000000")
"""What `nft` reads to show the set: numbers of the host's byte order, addresses of the network's."""


def changes(after: Table, before: Table) -> bytes:
    """b"": nothing differs.  Both are tables of `virtual_ips.table`."""
    old, new = _names(before), _names(after)
    messages = [
        *removed(after, before),
        *(message for name in sorted(old - new) for message in _vanished(before.name, name)),
        *(
            message
            for number, name in enumerate(sorted(new - old), 1)
            for message in _appeared(after, name, number)
        ),
        *added(after, before),
    ]
    return batch(messages) if messages else b""


def _names(table: Table) -> set[str]:
    return set(next(one.elements or {} for one in table.sets if one.name == "vips"))


def _vanished(table: str, address: str) -> list[Message]:
    chain = text(_TABLE, table) + text(_CHAIN_NAME, chain_name(address))
    return [
        Message(_DELETE_RULES, 0, text(_TABLE, table) + text(_NAME, chain_name(address))),
        Message(_DELETE_CHAIN, 0, chain),
        Message(_DELETE_SET, 0, text(_TABLE, table) + text(_NAME, map_name(address))),
    ]


def _appeared(table: Table, address: str, number: int) -> list[Message]:
    """`number` tells the new sets of a transaction apart."""
    where, chain = text(_TABLE, table.name), next(c for c in table.chains if c.name == chain_name(address))
    kinds = ((3, _INTERVALS_MAP), (4, _MARK), (5, 4), (6, _IPV4), (7, 4), (_NUMBER, number))
    described = b"".join(_number(kind, value) for kind, value in kinds) + attribute(*_SET_NOTES)
    return [
        Message(_NEW_SET, CREATE, where + text(_NAME, map_name(address)) + described),
        Message(_NEW_CHAIN, CREATE, where + text(_CHAIN_NAME, chain.name)),
        Message(_NEW_RULE, CREATE | _APPEND, where + _rule(chain, map_name(address), number)),
    ]


def _rule(chain: Chain, asked: str, number: int) -> bytes:
    """`dnat ip to meta mark map @asked`, with its tag as comment."""
    expressions = (
        _expression("meta", _number(2, 3), _number(1, 1)),
        _expression(
            "byteorder", *(_number(kind, value) for kind, value in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4)))
        ),
        _expression("lookup", _number(2, 1), _number(3, 1), text(1, asked), _number(4, number)),
        _expression("nat", _number(1, 1), _number(2, 2), _number(3, 1)),
    )
    comment = chain.tags[0].encode() + b"\0"
    notes = attribute(_NOTES, bytes([0, len(comment)]) + comment)
    return text(_NAME, chain.name) + nested(_EXPRESSIONS, *expressions) + notes


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(_EXPRESSION, text(_EXPRESSION_NAME, name), nested(_EXPRESSION_DATA, *parts))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))

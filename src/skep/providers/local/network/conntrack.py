"""Entries of connection tracking, taken out one by one (linux/netfilter/nfnetlink_conntrack.h)."""

import socket
import struct
from collections.abc import Container
from ipaddress import IPv4Address

import msgspec

from skep.providers.local.network import netfilter
from skep.providers.local.network.netfilter import attribute, message, nested
from skep.providers.local.network.netlink import attributes

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_ORIGINAL, _REPLY, _IP, _PROTO = 1, 2, 1, 2
_SOURCE, _TARGET = 1, 2
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3


class Reply(msgspec.Struct, frozen=True):
    """A flow of UDP as its answers have it: from whom, to whom."""

    source: IPv4Address
    source_port: int
    target: IPv4Address
    target_port: int


def forget(channel: socket.socket, reply: Reply) -> None:
    """Take out the entry with these answers: the next packet begins a flow anew.  None is success."""
    channel.send(message(_DELETE, netfilter.ACK, socket.AF_INET, _tuple(reply)))
    netfilter.acknowledged(channel, absent_is_well=True)


def forget_led_to(channel: socket.socket, gone: Container[IPv4Address]) -> None:
    """Take out the flows of UDP that are led to one of these; asks the whole table of the machine."""
    channel.send(message(_GET, netfilter.DUMP, socket.AF_INET))
    for entry in [attributes(body) for body in netfilter.listed(channel)]:
        reply = attributes(entry[_REPLY])
        source = IPv4Address(attributes(reply[_IP])[_SOURCE])
        if source in gone and attributes(reply[_PROTO])[_NUMBER][0] == socket.IPPROTO_UDP:
            channel.send(message(_DELETE, netfilter.ACK, socket.AF_INET, nested(_ORIGINAL, entry[_ORIGINAL])))
            netfilter.acknowledged(channel, absent_is_well=True)


def _tuple(reply: Reply) -> bytes:
    return nested(
        _REPLY,
        nested(_IP, attribute(_SOURCE, reply.source.packed), attribute(_TARGET, reply.target.packed)),
        nested(
            _PROTO,
            attribute(_NUMBER, bytes([socket.IPPROTO_UDP])),
            attribute(_SOURCE_PORT, struct.pack("!H", reply.source_port)),
            attribute(_TARGET_PORT, struct.pack("!H", reply.target_port)),
        ),
    )

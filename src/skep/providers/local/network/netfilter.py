"""Messages to the kernel's packet filter and connection tracking, as linux/netfilter/nfnetlink.h has them.

For what is asked so often that libnftables would take too long.  Everything acts on the namespace of the
calling thread.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator

from skep.model.errors import HostFailure

REQUEST, ACK, CREATE, DUMP = 0x1, 0x4, 0x400, 0x300
_NETFILTER = 12  # linux/netlink.h: NETLINK_NETFILTER
_ERROR, _DONE = 2, 3
_NESTED, _HEADER = 0x8000, struct.Struct("=IHHII")
_ENOENT = 2


def opened(room: int = 0) -> socket.socket:
    """A channel that takes `room` bytes at once.

    Closing one that changed rules waits until the kernel has freed what they replaced, some milliseconds.
    """
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(2 * room, 1 << 16))
    channel.settimeout(30)
    return channel


def message(kind: int, flags: int, family: int, body: bytes = b"", resource: int = 0) -> bytes:
    head = _HEADER.pack(20 + len(body), kind, flags | REQUEST, 1, 0)
    return head + struct.pack("!BBH", family, 0, resource) + body


def acknowledged(channel: socket.socket, *, absent_is_well: bool = False) -> None:
    """Wait for the answer to what asked for one.  Raises HostFailure: it was refused."""
    for kind, body in _messages(channel.recv(65_536)):
        code = -int.from_bytes(body[:4], sys.byteorder, signed=True) if kind == _ERROR else 0
        if code and not (code == _ENOENT and absent_is_well):
            raise HostFailure(f"The packet filter refused a change: {os.strerror(code)}.")


def found(channel: socket.socket) -> bool:
    """Whether what was asked for with an acknowledgement exists."""
    answers = list(_messages(channel.recv(65_536)))
    if answers[-1][0] != _ERROR:
        answers += _messages(channel.recv(65_536))
    return not int.from_bytes(answers[-1][1][:4], sys.byteorder, signed=True)


def listed(channel: socket.socket) -> Iterator[bytes]:
    """The bodies of what a dump answers.  Raises HostFailure: there is no such thing."""
    while True:
        for kind, body in _messages(channel.recv(65_536)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise HostFailure("The packet filter does not list what it holds.")
            yield body[4:]


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def attribute(kind: int, body: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(body), kind) + body + b"\0" * (-len(body) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += max(_HEADER.size, length + 3 & ~3)

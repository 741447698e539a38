"""Whether a process of the host itself listens where a service is to be published.

Read from /proc/net (proc(5)): binding a probe socket would take connections sitting in TIME_WAIT for
listeners.
"""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from skep.model.host import Publication
from skep.model.publishing import ANY_ADDRESS

_STATES = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; TCP_CLOSE: a UDP socket that is not connected

Listener = tuple[str, IPv4Address | IPv6Address, int]
"""Protocol, address, port."""


def host_listeners() -> set[Listener]:
    """The listeners in the namespace of the calling thread."""
    found: set[Listener] = set()
    for protocol, state in _STATES.items():
        for suffix in ("", "6"):
            path = Path(f"/proc/thread-self/net/{protocol}{suffix}")
            if path.exists():
                found |= {(protocol, *end) for end in _bound(path.read_text(), state)}
    return found


def conflicting(item: Publication, listeners: Iterable[Listener]) -> Listener | None:
    """The listener that the publication would cut off, if there is one."""
    for listener in listeners:
        protocol, address, port = listener
        if (protocol, port) == (item.protocol, item.published) and _meets(item.host_ip, address):
            return listener
    return None


def _meets(host_ip: str, address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None:
            return address.is_unspecified  # usually listens for IPv4 too
        address = mapped
    return host_ip in ANY_ADDRESS or address.is_unspecified or ip_address(host_ip) == address


def _bound(table: str, state: str) -> Iterable[tuple[IPv4Address | IPv6Address, int]]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == state:
            address, port = fields[1].split(":")
            yield _address(address), int(port, 16)


def _address(text: str) -> IPv4Address | IPv6Address:
    """Hexadecimal 32-bit words in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)

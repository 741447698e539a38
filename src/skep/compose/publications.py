"""Ports of a service that can be reached from outside, and those that are only declared."""

from ipaddress import ip_address
from typing import Literal

from skep.compose.cursor import Cursor
from skep.compose.ports import MOST_PORTS
from skep.model.spec import PublishedPort


def read_publications(ports: Cursor) -> tuple[PublishedPort, ...]:
    """The canonical `ports` of a service."""
    found = [port for item in ports.items() if (port := _read_port(item))]
    if len(found) > MOST_PORTS:
        ports.error(f"{len(found)} ports are published; a service may publish {MOST_PORTS}")
        return ()
    return tuple(dict.fromkeys(found))


def _read_port(item: Cursor) -> PublishedPort | None:
    if not item.has("target"):
        item.error("target, the port of the container, is missing")
        return None
    target = item.get("target").integer(1, 65535)
    published = _read_published(item.get("published"))
    host_ip = _read_address(item.get("host_ip"))
    protocol = _read_protocol(item)
    if target is None or host_ip is None or protocol is None:
        return None
    return PublishedPort(target=target, published=published, protocol=protocol, host_ip=host_ip)


def _read_protocol(item: Cursor) -> Literal["tcp", "udp"] | None:
    match item.get("protocol").text():
        case None | "" | "tcp":
            return "tcp"
        case "udp":
            return "udp"
        case other:
            item.get("protocol").error(f"the protocol {other[:20]!r} is not supported: use tcp or udp")
            return None


def _read_published(cursor: Cursor) -> int | None:
    """The port outside; None, empty and 0 let skep choose."""
    text = cursor.text()
    if not text:
        return None
    if "-" in text.strip()[1:]:
        cursor.error("a range to choose from is not supported: give one port, or none to let skep choose")
        return None
    return cursor.integer(0, 65535) or None


def _read_address(cursor: Cursor) -> str | None:
    text = cursor.text() or "0.0.0.0"  # noqa: S104 - what Compose means by a bare port
    try:
        address = ip_address(text)
    except ValueError:
        cursor.error(f"{text[:60]!r} is no IP address")
        return None
    if address.version != 4:
        cursor.error(f"{text}: ports are published on IPv4 addresses only")
        return None
    return str(address)

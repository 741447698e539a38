"""The networks of a service: which, under which names, at which address."""

import re
from ipaddress import IPv4Address, IPv6Address

import msgspec

from skep.compose.cursor import Cursor
from skep.model.spec import NetworkAttachment

DEFAULT = "default"
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def read_attachments(service: Cursor, networks: frozenset[str]) -> dict[str, NetworkAttachment]:
    """The networks by name.  Empty is the tenant's flat network, unless the project defines `default`.

    `networks` are those the project defines; a name that is none of them is an error.
    """
    _check_mode(service)
    found = {
        name: _attachment(entry)
        for name, entry in service.get("networks").entries()
        if _is_defined(name, entry, networks)
    }
    if not found and DEFAULT in networks:
        found = {DEFAULT: NetworkAttachment()}
    return _with_mac(service.get("mac_address"), found)


def _is_defined(name: str, entry: Cursor, networks: frozenset[str]) -> bool:
    if name in networks or name == DEFAULT:
        return True
    entry.error(f"the network {name[:60]!r} is not defined under networks")
    return False


def _check_mode(service: Cursor) -> None:
    mode = service.get("network_mode")
    text = mode.text()
    if text is None:
        return
    if service.has("networks"):
        mode.error("stands beside networks: give one of them")
    if text in ("bridge", "default", "none"):
        mode.warn(f"{text}: not acted on; the container is in the tenant's network")
    else:
        mode.error(f"{text[:60]} is not supported: a container always has a network of its own")


def _attachment(entry: Cursor) -> NetworkAttachment:
    return NetworkAttachment(
        aliases=tuple(alias for item in entry.get("aliases").items() if (alias := _alias(item))),
        ipv4_address=_address(entry.get("ipv4_address"), IPv4Address, "IPv4"),
        ipv6_address=_address(entry.get("ipv6_address"), IPv6Address, "IPv6"),
        mac_address=_mac(entry.get("mac_address")),
        priority=entry.get("priority").integer(-(2**31), 2**31 - 1) or 0,
    )


def _alias(cursor: Cursor) -> str | None:
    text = cursor.text() or ""
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?", text):
        cursor.error(f"{text[:70]!r} is no name for a host")
        return None
    return text


def _address(cursor: Cursor, kind: type[IPv4Address] | type[IPv6Address], family: str) -> str | None:
    text = cursor.text()
    if text is None:
        return None
    try:
        address = kind(text)
    except ValueError:
        cursor.error(f"{text[:60]!r} is no {family} address")
        return None
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        cursor.error(f"{address} cannot be the address of a container")
        return None
    return str(address)


def _mac(cursor: Cursor) -> str | None:
    text = cursor.text()
    if text is None:
        return None
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        cursor.error(f"{text[:40]!r} is no MAC address of a machine: write it like 02:42:ac:11:00:02")
        return None
    return text.lower().replace("-", ":")


def _with_mac(cursor: Cursor, attachments: dict[str, NetworkAttachment]) -> dict[str, NetworkAttachment]:
    """`mac_address` of the service is that of its first network: the one with the highest priority."""
    mac = _mac(cursor)
    if mac is None:
        return attachments
    attachments = attachments or {DEFAULT: NetworkAttachment()}
    first = max(attachments, key=lambda name: attachments[name].priority)
    old = attachments[first]
    if old.mac_address not in (None, mac):
        cursor.error(f"differs from the mac_address in the network {first}")
    return attachments | {first: msgspec.structs.replace(old, mac_address=mac)}

"""The short syntax of `ports` and `expose`.

Format: [HOST:]CONTAINER[/PROTOCOL], where HOST is [IP:](port | range), CONTAINER a port or a range
(https://github.com/compose-spec/compose-spec/blob/main/05-services.md#ports).
"""

import re
from typing import NamedTuple

MOST_PORTS = 1024
"""What one range may hold; every port costs a rule on the host."""

_RANGE = re.compile(r"(\d{1,40})(?:-(\d{1,40}))?")


class ShortPort(NamedTuple):
    target: int
    published: int | None = None
    host_ip: str | None = None
    protocol: str | None = None


def parse_ports(text: str) -> list[ShortPort]:
    """The ports that one entry in short syntax stands for.

    Raises:
        ValueError: it is no port, or its ranges do not match.
    """
    body, slash, protocol = text.strip().partition("/")
    host, container = _split(body, text)
    host_ip, published = _split_host(host, text)
    targets = parse_range(container, text)
    sources = parse_range(published, text) if published else []
    if sources and len(sources) != len(targets):
        raise ValueError(f"{_clip(text)}: {len(sources)} published ports do not match {len(targets)} ports")
    ends: list[int | None] = [*sources] if sources else [None] * len(targets)
    return [
        ShortPort(target, source, host_ip, protocol if slash else None)
        for target, source in zip(targets, ends, strict=True)
    ]


def parse_range(text: str, whole: str) -> list[int]:
    """`80` or `8000-8010` as numbers from 1 to 65535.

    Raises:
        ValueError: it is neither; `whole` is what the message quotes.
    """
    match = _RANGE.fullmatch(text)
    if not match:
        raise ValueError(f"{_clip(whole)} is no port: write 80, 8080:80, 127.0.0.1:8080:80 or 53:53/udp")
    first, last = int(match[1]), int(match[2] or match[1])
    if not (1 <= first <= 65535 and 1 <= last <= 65535):
        raise ValueError(f"{_clip(whole)}: a port is a number from 1 to 65535")
    if last < first:
        raise ValueError(f"{_clip(whole)}: the range ends before it begins")
    if last - first >= MOST_PORTS:
        raise ValueError(f"{_clip(whole)}: a range may hold at most {MOST_PORTS} ports")
    return list(range(first, last + 1))


def _split(body: str, text: str) -> tuple[str, str]:
    host, _, container = body.rpartition(":")
    if not container:
        raise ValueError(f"{_clip(text)}: the port of the container is missing")
    return host, container


def _split_host(host: str, text: str) -> tuple[str | None, str]:
    """The address and the published ports before the container's: `127.0.0.1:8080`, `[::1]:8080`, `8080`."""
    if host.startswith("["):
        address, bracket, published = host[1:].partition("]")
        if not bracket or published[:1] not in ("", ":"):
            raise ValueError(f"{_clip(text)}: the address in brackets is not closed")
        return address, published[1:]
    address, colon, published = host.rpartition(":")
    if not colon and "." in host:
        return host, ""
    return address or None, published


def _clip(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")

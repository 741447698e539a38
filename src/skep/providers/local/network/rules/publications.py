"""Published ports, on their way through the host and the router of their network."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from skep.model.host import Publication
from skep.model.publishing import ANY_ADDRESS
from skep.providers.local.network.nft import Elements


class Route(msgspec.Struct, frozen=True):
    """A publication with the port of the router's link address it passes through."""

    publication: Publication
    link_port: int


def host_elements(
    routes: Iterable[tuple[Route, IPv4Address | IPv6Address]], version: int = 4
) -> tuple[Elements, Elements]:
    """The elements of `published` and `published_at`, from routes and their networks' link addresses.

    `::` is every address of both families, and so is `0.0.0.0`, as a bare port means in Compose.
    """
    published, at = {}, {}
    for route, link in routes:
        item = route.publication
        if item.host_ip not in ANY_ADDRESS and ip_address(item.host_ip).version != version:
            continue
        key, value = f"{item.protocol} . {item.published}", f"{link} . {route.link_port}"
        if item.host_ip in ANY_ADDRESS:
            published[key] = value
        else:
            at[f"{item.host_ip} . {key}"] = value
    return published, at


def link_ports(
    wanted: Iterable[Publication], before: Mapping[tuple[str, str, int], int], taken: set[tuple[str, int]]
) -> tuple[int, ...]:
    """A port of the router's link address for every publication: what it had, else its own number, else any.

    Publications of one network may share a number on different host addresses, hence the choice.
    `before` is keyed by (protocol, host_ip, published); `taken` holds (protocol, port) of other services.
    """
    taken, chosen = set(taken), []
    for item in wanted:
        first = before.get((item.protocol, item.host_ip, item.published), item.published)
        candidates = (first, *range(1024, 65536))
        port = next(number for number in candidates if (item.protocol, number) not in taken)
        taken.add((item.protocol, port))
        chosen.append(port)
    return tuple(chosen)

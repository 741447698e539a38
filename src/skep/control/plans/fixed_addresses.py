"""Addresses that services ask for in a cluster, whose network gives pods theirs.  Pure.

A pod has one address, however many networks its service is in; it is of a range that the cluster has for it.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from skep.model.host import FixedAddress
from skep.model.spec import AppSpec, NetworkAttachment, ServiceSpec


def of_service(service: ServiceSpec) -> FixedAddress | None:
    """None: it takes what it gets."""
    asked = _asked(service)
    if not asked:
        return None
    _, place = asked[0]
    return FixedAddress(
        address=IPv4Address(place.ipv4_address) if place.ipv4_address else None,
        address6=IPv6Address(place.ipv6_address) if place.ipv6_address else None,
        mac=place.mac_address.lower() if place.mac_address else None,
    )


def texts(fixed: FixedAddress) -> tuple[str, ...]:
    """Its addresses as they are kept."""
    return tuple(str(one) for one in (fixed.address, fixed.address6) if one is not None)


def problems(spec: AppSpec, ranges: Sequence[str]) -> Iterator[str]:
    """What of it a cluster with these ranges does not do, by service, in words."""
    for name, service in spec.services.items():
        if len(asked := [network for network, _ in _asked(service)]) > 1:
            yield (
                f"service {name!r} asks for addresses on the networks {' and '.join(asked)}, and a pod has "
                "one for all of them"
            )
        elif (fixed := of_service(service)) is not None:
            for address in texts(fixed):
                if not _is_in(address, ranges):
                    yield f"service {name!r} asks for the address {address}, which is not in {_words(ranges)}"


def _asked(service: ServiceSpec) -> list[tuple[str, NetworkAttachment]]:
    return [(name, place) for name, place in sorted(service.networks.items()) if place.is_fixed]


def _is_in(address: str, ranges: Sequence[str]) -> bool:
    return any(_holds(one, ip_address(address)) for one in ranges)


def _holds(span: str, address: IPv4Address | IPv6Address) -> bool:
    """A CIDR, or `FIRST-LAST`."""
    first, dash, last = span.partition("-")
    if not dash:
        return address in ip_network(span)
    least, most = ip_address(first), ip_address(last)
    return address.version == least.version and int(least) <= int(address) <= int(most)


def _words(ranges: Sequence[str]) -> str:
    return " or ".join(ranges)

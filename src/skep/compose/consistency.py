"""What no service can see alone: circles, ports and addresses taken twice, waiting for what never comes."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from ipaddress import ip_address, ip_network

from skep.compose.cursor import Cursor
from skep.model.spec import AppNetwork, PublishedPort, ServiceSpec

ANY = "0.0.0.0"  # noqa: S104

Cursors = Mapping[str, Cursor]
Specs = Mapping[str, ServiceSpec]


def check_consistency(cursors: Cursors, specs: Specs, networks: Mapping[str, AppNetwork]) -> None:
    """Record errors for services that cannot run together."""
    _check_circles(cursors, specs)
    _check_ports(cursors, specs)
    _check_addresses(cursors, specs, networks)
    _check_conditions(cursors, specs)


def _check_circles(cursors: Cursors, specs: Specs) -> None:
    try:
        TopologicalSorter({name: spec.depends_on for name, spec in specs.items()}).prepare()
    except CycleError as error:
        # The sorter names what is waited for before who waits, and the first once more at the end.
        circle: list[str] = error.args[1][:0:-1]
        first = circle.index(min(circle))
        circle = [*circle[first:], *circle[: first + 1]]
        shown = circle if len(circle) <= 20 else [*circle[:19], "…"]
        at = cursors[circle[0]].get("depends_on")
        at.error(f"services wait for each other in a circle: {' → '.join(shown)}")


def _check_ports(cursors: Cursors, specs: Specs) -> None:
    taken: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name, spec in specs.items():
        for port in spec.ports:
            _claim(port, name, cursors[name].get("ports"), taken)


def _claim(
    port: PublishedPort, name: str, cursor: Cursor, taken: dict[tuple[str, int], list[tuple[str, str]]]
) -> None:
    if port.published is None:
        return
    holders = taken.setdefault((port.protocol, port.published), [])
    for address, holder in holders:
        if address == port.host_ip or ANY in (address, port.host_ip):
            item = next((at for at in cursor.items() if _is(at, port)), cursor)
            item.error(f"port {port.published}/{port.protocol} is published by the service {holder} already")
            break
    holders.append((port.host_ip, name))


def _is(item: Cursor, port: PublishedPort) -> bool:
    published, target = item.get("published").node.value, item.get("target").node.value
    address = item.get("host_ip").text() or ANY
    return (str(published), str(target), address) == (str(port.published), str(port.target), port.host_ip)


def _check_addresses(cursors: Cursors, specs: Specs, networks: Mapping[str, AppNetwork]) -> None:
    taken: dict[tuple[str, str], str] = {}
    for name, spec in specs.items():
        for network, attachment in spec.networks.items():
            at = cursors[name].get("networks").get(network)
            known = (attachment.ipv4_address, attachment.ipv6_address, attachment.mac_address)
            fixed = next(filter(None, known), None)
            if fixed is not None and spec.replicas > 1:
                at.error(f"{fixed} can belong to one replica only, but {name} has {spec.replicas}")
            for address in filter(None, known):
                if holder := taken.get((network, address)):
                    at.error(f"{address} belongs to the service {holder} already")
                taken[network, address] = name
            for key, wanted in (("ipv4_address", known[0]), ("ipv6_address", known[1])):
                if wanted and network in networks:
                    _check_in_subnet(at.get(key), wanted, networks[network])


def _check_in_subnet(cursor: Cursor, text: str, network: AppNetwork) -> None:
    address = ip_address(text)
    gateways = {network.gateway, *(one.gateway for one in network.subnets)}
    named = (network.subnet, *(one.subnet for one in network.subnets))
    subnets = [one for one in map(ip_network, filter(None, named)) if one.version == address.version]
    if not subnets:
        return
    subnet = next((one for one in subnets if address in one), None)
    if subnet is None:
        listed = ", ".join(map(str, subnets))
        cursor.error(f"{address} is not in the subnet {listed} of the network")
    elif address in (subnet.network_address, subnet.broadcast_address) or text in gateways:
        cursor.error(f"{address} is taken by the network {subnet} itself")


def _check_conditions(cursors: Cursors, specs: Specs) -> None:
    for name, spec in specs.items():
        for other, dependency in spec.depends_on.items():
            if dependency.condition != "service_healthy":
                continue
            at = cursors[name].get("depends_on").get(other)
            check = specs[other].healthcheck
            if check is None:
                at.warn(f"{other} has no healthcheck here; its image must have one")
            elif check.test[0] == "NONE":
                at.error(f"{other} will never be healthy: its healthcheck is switched off")

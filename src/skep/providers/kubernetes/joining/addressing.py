"""Which network plug-in of a cluster gives pods the address that they ask for, and out of which ranges.

Formats: https://docs.tigera.io/calico/latest/reference/resources/ippool and
https://kubeovn.github.io/docs/stable/en/guide/subnet/
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from lightkube.generic_resource import create_global_resource

from skep.providers.kubernetes.client.cluster import Cluster

FOR_TENANTS = "skep.dev/fixed-addresses"
"""A label of pools and subnets: where any has it, as `true`, tenants have addresses of these alone."""
_SMALLEST = 4
"""Addresses of a network that has hosts beside its own address and that of broadcasts."""


class Plugin(StrEnum):
    CALICO = "Calico"
    KUBE_OVN = "Kube-OVN"


@dataclass(frozen=True)
class Addressing:
    """`plugin` None: nothing that is known gives pods fixed addresses.

    `ranges`: those that may be asked for, as CIDRs or `FIRST-LAST`.  `unread`: the right without which they
    are not known.
    """

    plugin: Plugin | None = None
    ranges: tuple[str, ...] = ()
    unread: str = ""

    @property
    def macs(self) -> bool:
        """Whether they may ask for a MAC, too: on a switch of Kube-OVN that could be the gateway's."""
        return self.plugin is Plugin.CALICO and bool(self.ranges)


NOTHING = Addressing()


@dataclass(frozen=True)
class Source:
    """Where a plug-in says what addresses it has; `group` with its version."""

    plugin: Plugin
    group: str
    resource: str
    kind: Any
    ranges: Callable[[Any], Iterable[str]]

    def read(self, found: Iterable[Any]) -> Addressing:
        known = list(found)
        chosen = [one for one in known if _labels(one).get(FOR_TENANTS) == "true"] or known
        return Addressing(self.plugin, tuple(sorted({text for one in chosen for text in self.ranges(one)})))

    @property
    def unread(self) -> Addressing:
        return Addressing(self.plugin, unread=f"list {self.resource}.{self.group.partition('/')[0]}")


def source_of(groups: Iterable[str]) -> Source | None:
    """Of a cluster that serves these groups, each with its version."""
    served = frozenset(groups)
    return next((one for one in _SOURCES if one.group in served), None)


async def addressing(cluster: Cluster) -> Addressing:
    served = [one.group for one in _SOURCES if await cluster.serves(one.group)]
    source = source_of(served)
    if source is None:
        return NOTHING
    found = await cluster.seen(source.kind, labels={})
    return source.unread if found is None else source.read(found)


def _of_pool(pool: Any) -> Iterable[str]:
    """Of Calico; also of pools that give nothing unasked (`assignmentMode`, `nodeSelector: "!all()"`)."""
    spec = pool.get("spec") or {}
    if not spec.get("disabled") and "Workload" in (spec.get("allowedUses") or ("Workload",)):
        yield from _cidrs(spec.get("cidr"))


def _of_subnet(subnet: Any) -> Iterable[str]:
    """Of Kube-OVN.  Namespaces that are bound to none are in the default one.

    Whoever asks for the gateway's address gets it there, and with it what all others send.
    """
    spec = subnet.get("spec") or {}
    gateways = list(filter(None, (spec.get("gateway") or "").split(",")))
    if spec.get("default"):
        for one in _cidrs(spec.get("cidrBlock")):
            yield from _without(ip_network(one), gateways)


def _without(network: IPv4Network | IPv6Network, gateways: Iterable[str]) -> Iterable[str]:
    """The hosts of the network that are none of these."""
    if network.num_addresses < _SMALLEST:
        return
    first, last = int(network[1]), int(network[-2])
    for gateway in sorted(int(one) for one in map(ip_address, gateways) if one in network):
        if first < gateway:
            yield _span(network, first, gateway - 1)
        first = max(first, gateway + 1)
    if first <= last:
        yield _span(network, first, last)


def _span(network: IPv4Network | IPv6Network, first: int, last: int) -> str:
    at = int(network[0])
    return f"{network[first - at]}-{network[last - at]}"


def _cidrs(text: str | None) -> Iterable[str]:
    """One of each family, by commas."""
    for one in filter(None, (text or "").split(",")):
        yield str(ip_network(one.strip(), strict=False))


def _labels(found: Any) -> dict[str, str]:
    return (found.metadata and found.metadata.labels) or {}


def _source(plugin: Plugin, group: str, kind: str, resource: str, ranges: Callable[[Any], Any]) -> Source:
    name, _, version = group.partition("/")
    made = create_global_resource(name, version, kind, resource)
    return Source(plugin, group, resource, made, ranges)


_SOURCES = (
    _source(Plugin.CALICO, "crd.projectcalico.org/v1", "IPPool", "ippools", _of_pool),
    _source(Plugin.CALICO, "projectcalico.org/v3", "IPPool", "ippools", _of_pool),
    _source(Plugin.KUBE_OVN, "kubeovn.io/v1", "Subnet", "subnets", _of_subnet),
)
"""Calico has its pools in the first group, and shows them in the second where its API server runs."""

"""Who reaches whom, as NetworkPolicies.  Pure.

Nothing is reached in a tenant's namespace but by one of these; what several allow adds up, as rules of
several security groups do.  Pods bear their networks from the start, so a policy is written once, with its
network.  Where a group decides about somebody, and where something leads to single ones, they are meant by
their replica.  Rules of ICMP are left out, since policies have no word for it: what is not said is not
admitted.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from skep.model.edge import AppEndpoints
from skep.model.groups import GroupRule, restricts
from skep.model.host import GroupPolicy, ServicePublications
from skep.model.ids import ReplicaId
from skep.providers.kubernetes.manifests import (
    MANAGED_BY,
    Manifest,
    TenantNamespace,
    led_out_by,
    on_network,
    replicas_in,
)
from skep.providers.kubernetes.network.records import NetworkRecord, TenantRecord
from skep.providers.kubernetes.network.standing import Bearing

NAMED = "-named"
"""What the policy is called by that goes by name, beside one that goes by label."""
_SINGLY = 50
"""Ports of a range that are named one by one: clusters before 1.25 may not know ranges."""
_LOCAL = {IPv4Network("0.0.0.0/0"): ["169.254.0.0/16"], IPv6Network("::/0"): ["fe80::/10"]}
"""Where machines tell of themselves and of their cloud's keys: never for tenants."""


def policies(
    of: TenantNamespace, tenant: TenantRecord, bearings: Mapping[ReplicaId, Bearing]
) -> list[Manifest]:
    return [
        *(one for network in tenant.networks.values() for one in _network(of, network, bearings)),
        *(one for told in tenant.published.values() for one in _published(of, tenant, told)),
        *(one for told in tenant.endpoints.values() for one in _served(of, tenant, told)),
    ]


def guarded(network: NetworkRecord) -> Mapping[ReplicaId, frozenset[str]]:
    """Replicas on the network that security groups decide about, with these."""
    known, at = network.guards.ports if network.guards else (), network.at()
    return {at[port.address]: frozenset(port.groups) for port in known if port.address in at}


def _network(
    of: TenantNamespace, network: NetworkRecord, bearings: Mapping[ReplicaId, Bearing]
) -> Iterator[Manifest]:
    """On a network everybody reaches everybody, but for what is guarded."""
    name, labels = f"network-{network.config.id}", {"network": network.config.id}
    who = _by_name(network) if network.guarded else _by_network(network, bearings)
    everybody = [{"podSelector": one} for one in who.everybody]
    yield from _policies(of, name, labels, who.entered, ingress=[{"from": everybody}])
    yield from _policies(of, f"{name}-within", labels, who.free, egress=[{"to": everybody}])
    if not network.config.internal:
        yield from _policies(of, f"{name}-outside", labels, who.out, egress=[{"to": _anybody()}])
    guards, groups = guarded(network), _groups(network)
    for group in groups.values():
        inside = [one for one, of_group in guards.items() if group.id in of_group]
        rules = _rules(network, group, groups)
        yield from _policies(of, f"{name}-{group.id}", labels, _named(inside), **rules)


@dataclass(frozen=True)
class _Who:
    """Selectors of a network's pods, some of which groups decide about: they are not `entered` by everybody,
    and maybe not `free` to reach everybody there, or what is `out`side."""

    everybody: list[Manifest]
    entered: list[Manifest]
    free: list[Manifest]
    out: list[Manifest]


def _by_network(network: NetworkRecord, bearings: Mapping[ReplicaId, Bearing]) -> _Who:
    """By the label of the network, whoever comes and goes; those that were made without it by name."""
    ours, ports = network.config.id, network.ports.values()
    known = {port.replica: bearings[port.replica] for port in ports if port.replica in bearings}
    bare = {replica for replica, one in known.items() if ours not in one.networks}
    leading = {port.replica for port in ports if port.default_route}
    everybody = [on_network(ours), *_named(bare)]
    return _Who(everybody, everybody, everybody, [led_out_by(ours), *_named(bare & leading)])


def _by_name(network: NetworkRecord) -> _Who:
    guards, groups = guarded(network), _groups(network)
    members = {port.replica for port in network.ports.values()}
    free = {one for one in members if not _restricted(guards.get(one, ()), groups)}
    out = {port.replica for port in network.ports.values() if port.default_route}
    return _Who(_named(members), _named(members - guards.keys()), _named(free), _named(free & out))


def _groups(network: NetworkRecord) -> Mapping[str, GroupPolicy]:
    return {one.id: one for one in (network.guards.groups if network.guards else ())}


def _rules(
    network: NetworkRecord, group: GroupPolicy, groups: Mapping[str, GroupPolicy]
) -> dict[str, list[Manifest]]:
    """A group without rules for what leaves does not speak of it."""
    told: dict[str, list[Manifest]] = {"ingress": []}
    if restricts(group.rules, "egress"):
        told["egress"] = []
    for rule in group.rules:
        ends = _ends(network, rule, groups)
        if ends and rule.protocol != "icmp":
            side = "from" if rule.direction == "ingress" else "to"
            told[rule.direction].append({side: ends} | _ports(rule))
    return told


def _ends(network: NetworkRecord, rule: GroupRule, groups: Mapping[str, GroupPolicy]) -> list[Manifest]:
    """Pods that the rule means, and addresses outside of the cluster.  None: nobody."""
    if rule.group:
        named = groups.get(rule.group)
        return _pods(network.replicas(named.members) if named else ())
    within = [
        port.replica
        for port in network.ports.values()
        if any(port.address in one for one in rule.networks(4))
        or (port.address6 and any(port.address6 in one for one in rule.networks(6)))
    ]
    outside = [_block(one) for one in (*rule.networks(4), *rule.networks(6))]
    return _pods(within) + outside


def _ports(rule: GroupRule) -> Manifest:
    if rule.protocol == "any":
        return {}
    protocol, (first, last) = rule.protocol.upper(), rule.range
    if not rule.ports:
        return {"ports": [{"protocol": protocol}]}
    if last - first < _SINGLY:
        return {"ports": [{"protocol": protocol, "port": port} for port in range(first, last + 1)]}
    return {"ports": [{"protocol": protocol, "port": first, "endPort": last}]}


def _published(of: TenantNamespace, tenant: TenantRecord, told: ServicePublications) -> Iterator[Manifest]:
    """Everybody reaches what is published and not guarded: rules of groups speak of the outside, too."""
    for number, one in enumerate(told.publications):
        network = tenant.networks[one.network]
        guards = guarded(network)
        targets = [replica for replica in network.replicas(one.addresses) if replica not in guards]
        ports = [{"protocol": one.protocol.upper(), "port": one.target}]
        name, labels = f"published-{told.service}-{number}", {"service": told.service}
        yield from _policies(of, name, labels, _named(targets), ingress=[{"ports": ports}])


def _served(of: TenantNamespace, tenant: TenantRecord, told: AppEndpoints) -> Iterator[Manifest]:
    """What leads endpoints lives in namespaces that are no tenant's."""
    foreign = {
        "namespaceSelector": {
            "matchExpressions": [
                {"key": key, "operator": "NotIn", "values": [value]} for key, value in MANAGED_BY.items()
            ]
        }
    }
    by_port: dict[int, list[ReplicaId]] = {}
    known = {key: (network, network.at(), guarded(network)) for key, network in tenant.networks.items()}
    for server in (server for endpoint in told.endpoints for server in endpoint.servers):
        if server.network in known:
            network, at, guards = known[server.network]
            targets = by_port.setdefault(server.port, [])
            replica = at.get(server.address)
            if replica is not None and _admits(network, guards.get(replica), server.port):
                targets.append(replica)
    for port, targets in sorted(by_port.items()):
        rule = {"from": [foreign], "ports": [{"protocol": "TCP", "port": port}]}
        name, labels = f"endpoints-{told.app}-{port}", {"app-id": told.app}
        yield from _policies(of, name, labels, _named(targets), ingress=[rule])


def _admits(network: NetworkRecord, groups: frozenset[str] | None, port: int) -> bool:
    """Whether anybody may come to the port: of requests only who leads them knows the client.

    `groups` of the replica; None: it is not guarded.
    """
    known = network.guards.groups if network.guards else ()
    return groups is None or any(
        rule.direction == "ingress"
        and rule.protocol in ("any", "tcp")
        and not rule.cidr
        and not rule.group
        and port in range(rule.range[0], rule.range[1] + 1)
        for group in known
        if group.id in groups
        for rule in group.rules
    )


def _policies(
    of: TenantNamespace,
    name: str,
    labels: Mapping[str, str],
    who: Iterable[Manifest],
    **rules: list[Manifest],
) -> Iterator[Manifest]:
    """For each selector of pods.  A direction without a rule is closed, one not named is not spoken of."""
    if not rules:
        return
    marks, kinds = {"part": "policies", **labels}, [one.capitalize() for one in rules]
    for selector, called in zip(who, (name, name + NAMED), strict=False):
        spec = {"podSelector": selector, "policyTypes": kinds, **rules}
        yield of.object("networking.k8s.io/v1", "NetworkPolicy", called, marks, spec=spec)


def _restricted(names: Iterable[str], groups: Mapping[str, GroupPolicy]) -> bool:
    return any(restricts(groups[name].rules, "egress") for name in names if name in groups)


def _named(replicas: Collection[ReplicaId]) -> list[Manifest]:
    """None of nobody: a selector must not be empty."""
    return [replicas_in(replicas)] if replicas else []


def _pods(replicas: Collection[ReplicaId]) -> list[Manifest]:
    return [{"podSelector": one} for one in _named(replicas)]


def _anybody() -> list[Manifest]:
    return [_block(ip_network(one)) for one in ("0.0.0.0/0", "::/0")]


def _block(network: IPv4Network | IPv6Network) -> Manifest:
    held = [one for whole, parts in _LOCAL.items() if network == whole for one in parts]
    return {"ipBlock": {"cidr": str(network)} | ({"except": held} if held else {})}

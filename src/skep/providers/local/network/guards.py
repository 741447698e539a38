"""The table of security groups in a router namespace.  Pure text, no I/O.

A frame between two ports passes the bridge, and from there (`bridge-nf-call-iptables`) the hooks of IP with
connection tracking, once, wherever it came from: another port, the overlay, or the way in from outside.  Two
maps lead from its addresses to the chain of their groups.  There every packet of the direction that began the
connection is asked again, so a rule that is withdrawn ends what it admitted; answers pass by the mark that
the connection got when it was admitted.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path

from skep.model.errors import HostFailure, InvalidInput
from skep.model.groups import Direction, GroupRule, restricts, settled
from skep.model.host import GroupPolicy, NetworkGuards
from skep.model.ids import GroupId
from skep.providers.local.network import links
from skep.providers.local.network.naming import BRIDGE
from skep.providers.local.network.nft import Chain, Elements, Set, Table

TABLE = "skep_groups"
BRIDGED = "bridge/bridge-nf-call-iptables"
"""Below net/ of the router: "1" while anything is guarded."""

_SWITCH = Path("/proc/sys/net", BRIDGED)

_IN, _OUT = 0x1, 0x2
"""In the mark of a connection: its first packets were admitted by the groups of its target, of its source."""
_ALL = 0xFFFFFFFF
_PROTOCOLS = ("tcp", "udp", "icmp")
_DIRECTIONS: tuple[Direction, Direction] = ("egress", "ingress")
_SERVICE = "meta l4proto . th dport"


def check(guards: NetworkGuards) -> None:
    """Raises InvalidInput: a group is missing, or a rule cannot be."""
    known = {group.id for group in guards.groups}
    for rule in (rule for group in guards.groups for rule in group.rules):
        settled(rule)
    named = {GroupId(rule.group) for group in guards.groups for rule in group.rules if rule.group}
    if strange := (named | {name for port in guards.ports for name in port.groups}) - known:
        raise InvalidInput(f"A port or a rule names group {min(strange)}, which is none of the groups.")


def guard_table(guards: NetworkGuards) -> Table:
    """What decides over the guarded addresses; ports in the same groups share their chains."""
    groups = {group.id: group for group in guards.groups}
    ports = {str(port.address): tuple(sorted(port.groups)) for port in guards.ports if port.groups}
    sets, chains = _members(groups), []
    for together in sorted(set(ports.values())):
        rules = [rule for name in together for rule in groups[name].rules]
        for direction in _DIRECTIONS:
            found, chain = _decision(_chain(direction, together), direction, rules)
            sets += found
            chains.append(chain)
    maps = {
        direction: {address: f"jump {_chain(direction, together)}" for address, together in ports.items()}
        for direction in _DIRECTIONS
    }
    return Table(
        family="inet",
        name=TABLE,
        sets=(
            Set("sources", "map", "type ipv4_addr : verdict;", maps["egress"]),
            Set("targets", "map", "type ipv4_addr : verdict;", maps["ingress"]),
            *sets,
        ),
        chains=(
            *chains,
            Chain(
                "guarded",
                (f'iifname "{BRIDGE}" ip saddr vmap @sources', f'oifname "{BRIDGE}" ip daddr vmap @targets'),
                "type filter hook forward priority -10; policy accept;",
            ),
        ),
    )


def _chain(direction: Direction, together: tuple[GroupId, ...]) -> str:
    return f"{direction}_{hashlib.sha256(' '.join(together).encode()).hexdigest()[:12]}"


def _members(groups: Mapping[GroupId, GroupPolicy]) -> list[Set]:
    named = {rule.group for group in groups.values() for rule in group.rules if rule.group}
    return [
        Set(_members_of(name), "set", "type ipv4_addr;", _texts(groups[GroupId(name)].members))
        for name in sorted(named)
    ]


def _members_of(group: str) -> str:
    return f"members_{group}"


def _texts(addresses: Iterable[IPv4Address]) -> Elements:
    return {str(address): "" for address in addresses}


def _decision(name: str, direction: Direction, rules: list[GroupRule]) -> tuple[list[Set], Chain]:
    """The sets and the chain that decide for the ports that are together in some groups."""
    own, other, remote = (_IN, _OUT, "saddr") if direction == "ingress" else (_OUT, _IN, "daddr")
    admit = f"ct mark set ct mark or {own:#x} return"
    if not restricts(rules, direction):
        return [], Chain(name, ("ct direction reply return", admit))
    found = list(_questions(name, f"ip {remote}", [one for one in rules if one.direction == direction]))
    chain = Chain(
        name,
        (
            f"ct direction reply ct mark and {other:#x} == {other:#x} return",
            f"ct state related ct mark and {_IN | _OUT:#x} != 0 return",
            *(f"ct direction original {question} {admit}" for question, _ in found),
            f"ct mark set ct mark and {_ALL ^ own:#x} drop",
        ),
    )
    return [one for _, made in found for one in made], chain


def _questions(name: str, remote: str, rules: list[GroupRule]) -> Iterator[tuple[str, list[Set]]]:
    """One for all addresses, and one for every group that is named, each with the sets it asks."""
    plain = [rule for rule in rules if not rule.group]
    if wholly := [rule.network for rule in plain if rule.protocol == "any"]:
        elements = {_network(one): "" for one in collapse_addresses(wholly)}
        yield (
            f"{remote} @{name}_all",
            [Set(f"{name}_all", "set", "type ipv4_addr; flags interval;", elements)],
        )
    if some := [rule for rule in plain if rule.protocol != "any"]:
        kind = "type ipv4_addr . inet_proto . inet_service; flags interval;"
        elements = {f"{_network(one)} . {ports}": "" for ports, found in _apart(some) for one in found}
        yield f"{remote} . {_SERVICE} @{name}_some", [Set(f"{name}_some", "set", kind, elements)]
    for group in sorted({rule.group for rule in rules if rule.group}):
        theirs, members = [rule for rule in rules if rule.group == group], f"@{_members_of(group)}"
        if any(rule.protocol == "any" for rule in theirs):
            yield f"{remote} {members}", []
        else:
            kind, own = "type inet_proto . inet_service; flags interval;", f"{name}_{group}"
            elements = {ports: "" for ports, _ in _apart(theirs)}
            yield f"{remote} {members} {_SERVICE} @{own}", [Set(own, "set", kind, elements)]


def _apart(rules: list[GroupRule]) -> Iterator[tuple[str, list[IPv4Network]]]:
    """Ranges of ports with whom each is for; the kernel takes no elements that overlap."""
    for protocol in _PROTOCOLS:
        found = [rule for rule in rules if rule.protocol == protocol]
        edges = sorted({edge for rule in found for edge in (rule.range[0], rule.range[1] + 1)})
        for first, end in itertools.pairwise(edges):
            covering = [rule.network for rule in found if rule.range[0] <= first <= rule.range[1]]
            if covering:
                ports = str(first) if end == first + 1 else f"{first}-{end - 1}"
                yield f"{protocol} . {ports}", list(collapse_addresses(covering))


def _network(one: IPv4Network) -> str:
    return str(one.network_address) if one.prefixlen == one.max_prefixlen else str(one)


# In the router namespace.


def look_at_frames() -> None:
    """Raises HostFailure: the kernel cannot."""
    if not _SWITCH.exists():
        raise HostFailure("Security groups need the kernel module br_netfilter: modprobe br_netfilter.")
    links.sysctl([(BRIDGED, "1")])


def frames_are_looked_at() -> bool:
    return _SWITCH.exists() and _SWITCH.read_text().strip() == "1"

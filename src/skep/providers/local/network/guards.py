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
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, InvalidInput
from skep.model.groups import Direction, GroupRule, restricts, settled
from skep.model.host import GroupPolicy, GuardedPort, NetworkGuards
from skep.model.ids import GroupId
from skep.providers.local.network import links
from skep.providers.local.network.naming import BRIDGE
from skep.providers.local.network.nft import Chain, Set, Table

TABLE = "skep_groups"
BRIDGED = "bridge/bridge-nf-call-iptables"
BRIDGED6 = "bridge/bridge-nf-call-ip6tables"
"""Below net/ of the router: "1" while anything is guarded."""

_SWITCH, _SWITCH6 = Path("/proc/sys/net", BRIDGED), Path("/proc/sys/net", BRIDGED6)

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
    sets: list[Set] = []
    chains: list[Chain] = []
    hook: list[str] = []
    for family in (_FOUR, _SIX) if dual(guards) else (_FOUR,):
        made, decisions = _family(guards, family)
        sets += made
        chains += decisions
        hook += family.hook
    return Table(
        family="inet",
        name=TABLE,
        sets=tuple(sets),
        chains=(
            *chains,
            Chain("guarded", tuple(hook), "type filter hook forward priority -10; policy accept;"),
        ),
    )


def dual(guards: NetworkGuards) -> bool:
    """Whether addresses of IPv6 are guarded, too."""
    return any(port.address6 for port in guards.ports)


def _family(guards: NetworkGuards, family: "_Family") -> tuple[list[Set], list[Chain]]:
    groups = {group.id: group for group in guards.groups}
    ports = {
        str(address): tuple(sorted(port.groups))
        for port in guards.ports
        if port.groups and (address := family.of(port)) is not None
    }
    sets, chains = _members(groups, family), []
    for together in sorted(set(ports.values())):
        rules = [rule for name in together for rule in groups[name].rules]
        for direction in _DIRECTIONS:
            found, chain = _decision(_chain(direction, together, family), direction, rules, family)
            sets += found
            chains.append(chain)
    maps = [
        Set(
            name + family.suffix,
            "map",
            f"type {family.kind} : verdict;",
            {address: f"jump {_chain(direction, together, family)}" for address, together in ports.items()},
        )
        for name, direction in zip(("sources", "targets"), _DIRECTIONS, strict=True)
    ]
    return [*maps, *sets], chains


class _Family(msgspec.Struct, frozen=True):
    version: int
    suffix: str
    kind: str
    word: str
    icmp: str

    def of(self, port: GuardedPort) -> IPv4Address | IPv6Address | None:
        return port.address if self.version == 4 else port.address6

    def members(self, group: GroupPolicy) -> tuple[IPv4Address, ...] | tuple[IPv6Address, ...]:
        return group.members if self.version == 4 else group.members6

    @property
    def hook(self) -> tuple[str, ...]:
        # Who has which address is asked in IP: what may be said of it, the bridge's own table decides.
        found = ("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } return",)
        return (
            *(found if self.version == 6 else ()),
            f'iifname "{BRIDGE}" {self.word} saddr vmap @sources{self.suffix}',
            f'oifname "{BRIDGE}" {self.word} daddr vmap @targets{self.suffix}',
        )


_FOUR = _Family(4, "", "ipv4_addr", "ip", "icmp")
_SIX = _Family(6, "6", "ipv6_addr", "ip6", "ipv6-icmp")


def _chain(direction: Direction, together: tuple[GroupId, ...], family: _Family) -> str:
    digest = hashlib.sha256(" ".join(together).encode()).hexdigest()[:12]
    return f"{direction}{family.suffix}_{digest}"


def _members(groups: Mapping[GroupId, GroupPolicy], family: _Family) -> list[Set]:
    named = {rule.group for group in groups.values() for rule in group.rules if rule.group}
    return [
        Set(
            _members_of(name, family),
            "set",
            f"type {family.kind};",
            {str(address): "" for address in family.members(groups[GroupId(name)])},
        )
        for name in sorted(named)
    ]


def _members_of(group: str, family: _Family) -> str:
    return f"members{family.suffix}_{group}"


def _decision(
    name: str, direction: Direction, rules: list[GroupRule], family: _Family
) -> tuple[list[Set], Chain]:
    """The sets and the chain that decide for the ports that are together in some groups."""
    own, other, remote = (_IN, _OUT, "saddr") if direction == "ingress" else (_OUT, _IN, "daddr")
    admit = f"ct mark set ct mark or {own:#x} return"
    if not restricts(rules, direction):
        return [], Chain(name, ("ct direction reply return", admit))
    asked = [one for one in rules if one.direction == direction]
    found = list(_questions(name, f"{family.word} {remote}", asked, family))
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


def _questions(
    name: str, remote: str, rules: list[GroupRule], family: _Family
) -> Iterator[tuple[str, list[Set]]]:
    """One for all addresses, and one for every group that is named, each with the sets it asks."""
    plain = [rule for rule in rules if not rule.group and rule.networks(family.version)]
    if wholly := [one for rule in plain if rule.protocol == "any" for one in rule.networks(family.version)]:
        elements = {_network(one): "" for one in _collapsed(wholly)}
        yield (
            f"{remote} @{name}_all",
            [Set(f"{name}_all", "set", f"type {family.kind}; flags interval;", elements)],
        )
    if some := [rule for rule in plain if rule.protocol != "any"]:
        kind = f"type {family.kind} . inet_proto . inet_service; flags interval;"
        elements = {
            f"{_network(one)} . {ports}": "" for ports, found in _apart(some, family) for one in found
        }
        yield f"{remote} . {_SERVICE} @{name}_some", [Set(f"{name}_some", "set", kind, elements)]
    for group in sorted({rule.group for rule in rules if rule.group}):
        theirs, members = [rule for rule in rules if rule.group == group], f"@{_members_of(group, family)}"
        if any(rule.protocol == "any" for rule in theirs):
            yield f"{remote} {members}", []
        else:
            kind, own = "type inet_proto . inet_service; flags interval;", f"{name}_{group}"
            elements = {ports: "" for ports, _ in _apart(theirs, family)}
            yield f"{remote} {members} {_SERVICE} @{own}", [Set(own, "set", kind, elements)]


def _apart(rules: list[GroupRule], family: _Family) -> Iterator[tuple[str, list[IPv4Network | IPv6Network]]]:
    """Ranges of ports with whom each is for; the kernel takes no elements that overlap."""
    for protocol in _PROTOCOLS:
        found = [rule for rule in rules if rule.protocol == protocol]
        edges = sorted({edge for rule in found for edge in (rule.range[0], rule.range[1] + 1)})
        for first, end in itertools.pairwise(edges):
            covering = [rule for rule in found if rule.range[0] <= first <= rule.range[1]]
            if covering:
                ports = str(first) if end == first + 1 else f"{first}-{end - 1}"
                name = family.icmp if protocol == "icmp" else protocol
                networks = [one for rule in covering for one in rule.networks(family.version)]
                yield f"{name} . {ports}", _collapsed(networks)


def _collapsed(found: Iterable[IPv4Network | IPv6Network]) -> list[IPv4Network | IPv6Network]:
    """Of one family."""
    known = list(found)
    four = collapse_addresses([one for one in known if isinstance(one, IPv4Network)])
    return [*four, *collapse_addresses([one for one in known if isinstance(one, IPv6Network)])]


def _network(one: IPv4Network | IPv6Network) -> str:
    return str(one.network_address) if one.prefixlen == one.max_prefixlen else str(one)


# In the router namespace.


def look_at_frames(guards: NetworkGuards) -> None:
    """Raises HostFailure: the kernel cannot."""
    if not _SWITCH.exists():
        raise HostFailure("Security groups need the kernel module br_netfilter: modprobe br_netfilter.")
    links.sysctl([(BRIDGED, "1"), (BRIDGED6, "1" if dual(guards) else "0")])


def frames_are_looked_at(guards: NetworkGuards | None = None) -> bool:
    """Those of the families that are guarded; without guards: any."""
    if guards is not None and dual(guards) and not _is_on(_SWITCH6):
        return False
    return _is_on(_SWITCH)


def _is_on(switch: Path) -> bool:
    return switch.exists() and switch.read_text().strip() == "1"

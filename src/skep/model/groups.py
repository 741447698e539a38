"""Security groups: what may reach a replica, and what it may reach.

Control decides with `admits` for people who ask; hosts make packet rules of the same rules.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Literal

import msgspec

from skep.model.errors import InvalidInput

Direction = Literal["ingress", "egress"]
Protocol = Literal["any", "tcp", "udp", "icmp"]

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_LAST = 65535
EVERYWHERE, EVERYWHERE6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")


class GroupRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Admits connections of a protocol, to `ports` (`80` or `8000-8100`; empty: all), with a remote end.

    The remote end is whoever is in `cidr`, or the members of `group`, or, without both, anybody.
    """

    direction: Direction = "ingress"
    protocol: Protocol = "any"
    ports: str = ""
    cidr: str = ""
    group: str = ""

    @property
    def id(self) -> str:
        """Equal rules have equal ids."""
        text = f"{self.direction} {self.protocol} {self.ports} {self.cidr} {self.group}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last port.  Raises InvalidInput."""
        if not self.ports:
            return 0, _LAST
        found = _PORTS.fullmatch(self.ports)
        first = int(found[1]) if found else 0
        last = int(found[2] or first) if found else 0
        if not 1 <= first <= last <= _LAST:
            raise InvalidInput(f"Ports {self.ports[:40]!r}: write a port from 1 to 65535, or FIRST-LAST.")
        return first, last

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """Whose addresses are meant, where no group is (see `networks`).  Raises InvalidInput."""
        try:
            return ip_network(self.cidr) if self.cidr else EVERYWHERE
        except ValueError as error:
            raise InvalidInput(
                f"CIDR {self.cidr[:60]!r}: {error}. Write it like 192.0.2.0/24, without host bits."
            ) from error

    def networks(self, version: int) -> list[IPv4Network | IPv6Network]:
        """Whose addresses of one family are meant, where no group is: none where it speaks of the other."""
        known = (self.network,) if self.cidr else (EVERYWHERE, EVERYWHERE6)
        return [one for one in known if one.version == version]

    def __str__(self) -> str:
        remote = f"group {self.group}" if self.group else self.cidr or "anybody"
        what = " ".join(part for part in (self.protocol, self.ports) if part)
        return f"{self.direction} {what} {'from' if self.direction == 'ingress' else 'to'} {remote}"


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that somebody would like to begin, seen from one end: `remote` is the other's address.

    `protocol` empty: any at all.
    """

    direction: Direction
    remote: IPv4Address | IPv6Address
    protocol: str
    port: int = 0
    remote_groups: frozenset[str] = frozenset()


def check_service(protocol: str, port: int | None) -> None:
    """Raises InvalidInput: nothing can listen there."""
    if protocol not in ("tcp", "udp", "icmp"):
        raise InvalidInput(f"Protocol {protocol[:40]!r}: say tcp, udp or icmp.")
    if port is not None and (protocol == "icmp" or not 1 <= port <= _LAST):
        raise InvalidInput(f"Port {port}: tcp and udp have ports from 1 to {_LAST}.")


def settled(rule: GroupRule) -> GroupRule:
    """The rule as it is kept; raises InvalidInput for one that cannot be."""
    first, last = rule.range
    if rule.ports and rule.protocol not in ("tcp", "udp"):
        raise InvalidInput(f"Protocol {rule.protocol} has no ports: say tcp or udp, or leave the ports out.")
    if rule.cidr and rule.group:
        raise InvalidInput("A rule has one remote end: a CIDR or a group, not both.")
    ports = "" if not rule.ports else str(first) if first == last else f"{first}-{last}"
    cidr = "" if rule.network == EVERYWHERE else str(rule.network)
    return msgspec.structs.replace(rule, ports=ports, cidr=cidr)


def restricts(rules: Iterable[GroupRule], direction: Direction) -> bool:
    """Whether what no rule admits is refused: always of ingress, of egress where there is a rule for it."""
    return direction == "ingress" or any(rule.direction == direction for rule in rules)


def admits(groups: Mapping[str, Collection[GroupRule]], flow: Flow) -> tuple[str, GroupRule] | None:
    """The first group and rule that admit it; `groups` are those of the port, by name."""
    return next(
        ((name, rule) for name in sorted(groups) for rule in groups[name] if _covers(rule, flow)), None
    )


def _covers(rule: GroupRule, flow: Flow) -> bool:
    first, last = rule.range
    return (
        rule.direction == flow.direction
        and (not flow.protocol or rule.protocol in ("any", flow.protocol))
        and (flow.protocol not in ("tcp", "udp") or first <= flow.port <= last)
        and (
            rule.group in flow.remote_groups
            if rule.group
            else any(flow.remote in one for one in rule.networks(flow.remote.version))
        )
    )

"""What guards the ports of a network, as each of its hosts must know it.  Pure."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

import msgspec

from skep.model.groups import GroupRule
from skep.model.host import GroupPolicy, GuardedPort, NetworkGuards
from skep.model.ids import GroupId, HostName, NetworkId, TenantId
from skep.store.groups import GroupRow, MemberRow

GONE = GroupId("gone")
"""A group of which there is no row: nobody is in it and it admits nothing."""


class GuardMap:
    """One network as the rows have it.  `generation` is when they were read: a later one knows more."""

    def __init__(
        self,
        network: NetworkId,
        generation: int,
        members: Iterable[MemberRow],
        groups: Mapping[tuple[TenantId, str], GroupRow],
    ) -> None:
        self.network = network
        self.generation = generation
        self._groups = groups
        self._members = list(members)
        self.hosts = sorted({row.host for row in self._members})

    def seen_from(self, host: HostName, at_least: int = 0) -> NetworkGuards:
        """What the host must know: rules for its own ports, and the members of the groups they name."""
        own = [row for row in self._members if row.host == host]
        ports = tuple(
            GuardedPort(
                address=IPv4Address(row.address), groups=tuple(sorted(self._ids(row))), address6=_sixth(row)
            )
            for row in own
        )
        ruling = {name for row in own for name in self._names(row)}
        return NetworkGuards(
            network=self.network,
            generation=max(self.generation, at_least),
            ports=ports,
            groups=tuple(sorted(self._policies(ruling), key=lambda group: group.id)),
        )

    def digest_from(self, host: HostName) -> str:
        return self.seen_from(host).digest

    def _policies(self, ruling: set[tuple[TenantId, str]]) -> Iterable[GroupPolicy]:
        """The groups whose rules count, and those that these name."""
        named = {
            (tenant, rule.group)
            for tenant, name in ruling
            if (tenant, name) in self._groups
            for rule in self._groups[tenant, name].rules
            if rule.group
        }
        for key in ruling | named:
            if key in self._groups:
                rules = self._rules(key) if key in ruling else ()
                members = self._addresses(key) if key in named else ()
                members6 = self._sixth(key) if key in named else ()
                yield GroupPolicy(id=self._groups[key].id, rules=rules, members=members, members6=members6)
        if any(key not in self._groups for key in ruling | named):
            yield GroupPolicy(id=GONE)

    def _rules(self, key: tuple[TenantId, str]) -> tuple[GroupRule, ...]:
        """With groups by id."""
        return tuple(
            msgspec.structs.replace(rule, group=self._id((key[0], rule.group))) if rule.group else rule
            for rule in self._groups[key].rules
        )

    def _addresses(self, key: tuple[TenantId, str]) -> tuple[IPv4Address, ...]:
        return tuple(IPv4Address(row.address) for row in self._members if key in self._names(row))

    def _sixth(self, key: tuple[TenantId, str]) -> tuple[IPv6Address, ...]:
        known = (_sixth(row) for row in self._members if key in self._names(row))
        return tuple(address for address in known if address)

    def _names(self, row: MemberRow) -> list[tuple[TenantId, str]]:
        return [(row.tenant_id, name) for name in row.security_groups]

    def _ids(self, row: MemberRow) -> set[GroupId]:
        return {self._id(key) for key in self._names(row)}

    def _id(self, key: tuple[TenantId, str]) -> GroupId:
        return self._groups[key].id if key in self._groups else GONE


def _sixth(row: MemberRow) -> IPv6Address | None:
    return None if row.address6 is None else IPv6Address(row.address6)


NOTHING = NetworkGuards(network=NetworkId(""), generation=0).digest


def guard_maps(
    generation: int, members: Iterable[MemberRow], groups: Iterable[GroupRow]
) -> dict[NetworkId, GuardMap]:
    """A map of every network on which something is guarded."""
    by_network: dict[NetworkId, list[MemberRow]] = {}
    for row in members:
        by_network.setdefault(row.network_id, []).append(row)
    known = {(row.tenant_id, row.name): row for row in groups}
    return {network: GuardMap(network, generation, found, known) for network, found in by_network.items()}

"""A host for every replica that a plan makes.  Pure: facts, a wanted app and a cluster in, hosts out.

Disks are on one host each, and what mounts them must run there: replicas that share a volume, and replicas
whose volume exists already, are placed as one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from skep.control.naming import disk_name
from skep.control.plans.comparing import ordinals
from skep.control.plans.homes import home_of, zones_of
from skep.control.plans.plans import Facts
from skep.model.errors import Conflict, Exhausted
from skep.model.ids import Bytes, HostName, TenantId
from skep.model.names import ServiceName
from skep.model.placement import parse_constraint
from skep.model.spec import AppSpec, ServiceSpec
from skep.schedule.candidates import Group
from skep.schedule.placement import Cluster

Position = tuple[ServiceName, int]
"""A replica by service and ordinal."""
Placing = Mapping[Position, HostName]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Positions that must be on one host, since they share disks; `new` are those that have none yet."""

    new: tuple[Position, ...]
    pins: tuple[HostName, ...]


def assign(
    facts: Facts,
    spec: AppSpec,
    tenant: TenantId,
    cluster: Cluster,
    default_memory: Bytes,
    beside: Sequence[Position] = (),
) -> Placing:
    """Where each replica goes that is not there yet, and each stand-in `beside` one that is.

    Raises:
        Exhausted: no host has room, or the one with its disks does not take it.
        Conflict: its disks are on different hosts, or it would be in a cluster and elsewhere, too.
        Unsupported: it would be in a cluster that does not have what it asks for.
    """
    assignment = _Assignment(facts, spec, tenant, cluster, default_memory)
    return assignment.hosts() | assignment.stand_ins(beside)


def group_of(
    spec: AppSpec,
    service: ServiceName,
    tenant: TenantId,
    replicas: int,
    present: Mapping[HostName, int],
    default_memory: Bytes,
    cluster: str = "",
) -> Group:
    """So many replicas of a service, wherever it allows, beside those that are `present`.

    `cluster`: in that of this zone; empty: on machines.
    """
    wanted = spec.services[service]
    plain = Group(
        what=f"{spec.name}/{service}",
        tenant=tenant,
        replicas=replicas,
        cpus=wanted.resources.cpus or 0.0,
        memory=Bytes(wanted.resources.memory or default_memory),
        constraints=tuple(parse_constraint(text) for text in wanted.placement.constraints),
        zones=zones_of(spec, wanted),
        pack=wanted.x_skep.pack,
        max_per_host=wanted.placement.max_per_host,
        present=present,
        cluster=cluster,
    )
    spread = wanted.placement.spread
    return msgspec.structs.replace(plain, spread=spread) if spread else plain


class _Assignment:
    def __init__(
        self, facts: Facts, spec: AppSpec, tenant: TenantId, cluster: Cluster, default_memory: Bytes
    ) -> None:
        self.facts = facts
        self.spec = spec
        self.tenant = tenant
        self.cluster = cluster
        self.default_memory = default_memory
        self.home = home_of(facts, spec) or ""
        self.there: dict[Position, HostName] = {}
        if facts.destination is None:  # else all of it is placed as if nothing was there
            self.there = {(ServiceName(row.service), row.ordinal): row.host for row in facts.replicas}
        self.chosen: dict[Position, HostName] = {}
        self.positions: dict[Position, None] = {
            (name, one): None for name in spec.services for one in ordinals(facts, spec, name)
        }

    def stand_ins(self, beside: Sequence[Position]) -> dict[Position, HostName]:
        """Spread as if the ones they replace were gone; but there must be room for both.

        In a rolling release so many stand beside the others as are replaced at a time.
        """
        chosen: dict[Position, HostName] = {}
        for service in dict.fromkeys(name for name, _ in beside):
            those = [position for position in beside if position[0] == service]
            kept = Counter(
                host
                for position, host in (self.there | self.chosen).items()
                if position[0] == service and position not in those
            )
            size = self._at_once(service, len(those))
            for first in range(0, len(those), size):
                batch = those[first : first + size]
                group = group_of(
                    self.spec, service, self.tenant, len(batch), kept, self.default_memory, self.home
                )
                try:
                    hosts = self.cluster.place(group)
                except Exhausted as error:
                    if self.cluster.unmet(group) is not None:
                        raise
                    raise _no_room_for_both(service, error) from error
                chosen |= dict(zip(batch, hosts, strict=True))
                kept.update(hosts)
                if size < len(those):
                    self._release(group, batch)
        return chosen

    def _at_once(self, service: ServiceName, most: int) -> int:
        if self.spec.x_skep.release.strategy != "rolling":
            return most
        return min(most, self.spec.services[service].update.parallelism or most)

    def _release(self, group: Group, batch: Sequence[Position]) -> None:
        """What the batch replaced is gone when the next one comes."""
        less = msgspec.structs.replace(group, cpus=-group.cpus, memory=Bytes(-group.memory))
        for position in batch:
            self.cluster.promise(self.there[position], less)

    def hosts(self) -> dict[Position, HostName]:
        for bundle in (bundle for bundle in self._bundles() if bundle.pins):
            for position in bundle.new:
                self.cluster.put(self._group([position]), bundle.pins[0])
                self.chosen[position] = bundle.pins[0]
        for alike in self._alike():
            group = self._group(alike[0], len(alike))
            for positions, host in zip(alike, self.cluster.place(group), strict=True):
                self.chosen |= dict.fromkeys(positions, host)
        return self.chosen

    def _alike(self) -> Iterable[list[tuple[Position, ...]]]:
        """Bundles that are free to go anywhere, those together that want the same."""
        kinds: dict[tuple[tuple[ServiceName, int], ...], list[tuple[Position, ...]]] = {}
        for bundle in self._bundles():
            if not bundle.pins:
                counted = Counter(service for service, _ in bundle.new)
                kinds.setdefault(tuple(counted.items()), []).append(bundle.new)
        return kinds.values()

    def _bundles(self) -> list[Bundle]:
        """Every position that has no host yet, with those it shares disks with."""
        used = {position: self._disks(*position) for position in self.positions}
        bundles = []
        for members in _connected(used):
            new = tuple(position for position in members if position not in self.there)
            if new:
                disks = {disk for member in members for disk in used[member]}
                bundles.append(Bundle(new=new, pins=self._pins(members, disks)))
        return bundles

    def _pins(self, members: Iterable[Position], disks: Iterable[str]) -> tuple[HostName, ...]:
        """The host that is decided already: of a disk, or of a replica that will share one."""
        pins = {self.facts.disks[disk].host for disk in disks if disk in self.facts.disks}
        members = list(members)
        if len(members) > 1:
            pins |= {self.there[member] for member in members if member in self.there}
        if len(pins) > 1:
            names = ", ".join(f"{service}-{ordinal}" for service, ordinal in members)
            raise Conflict(
                f"{names} would need disks of the hosts {', '.join(sorted(pins))} in one place: volumes that "
                "are mounted together must be on one host."
            )
        return tuple(pins)

    def _disks(self, name: ServiceName, ordinal: int) -> list[str]:
        mounts = [mount for mount in self.spec.services[name].mounts if mount.type == "volume"]
        return [disk_name(self.spec.name, name, ordinal, mount, self.spec) for mount in mounts]

    def _zones(self, services: Iterable[ServiceSpec]) -> tuple[str, ...]:
        going = self.facts.destination
        return going.zones if going is not None else _common_zones(self.spec, services)

    def _group(self, positions: Iterable[Position], count: int = 1) -> Group:
        """What the positions want together: the sum of their sizes, and every constraint of each."""
        names = [service for service, _ in positions]
        services = [self.spec.services[name] for name in names]
        first = services[0]
        hosts = Counter(
            host
            for position, host in (self.there | self.chosen).items()
            if position[0] in names and position in self.positions
        )
        bounds = [one.placement.max_per_host for one in services if one.placement.max_per_host]
        return Group(
            what=" with ".join(f"{self.spec.name}/{name}" for name in dict.fromkeys(names)),
            tenant=self.tenant,
            replicas=count,
            cpus=sum(service.resources.cpus or 0.0 for service in services),
            memory=Bytes(sum(service.resources.memory or self.default_memory for service in services)),
            constraints=tuple(
                parse_constraint(text) for service in services for text in service.placement.constraints
            ),
            zones=self._zones(services),
            pack=first.x_skep.pack,
            max_per_host=min(bounds, default=None),
            present=hosts,
            cluster=self.home,
            **({"spread": first.placement.spread} if first.placement.spread else {}),
        )


def _no_room_for_both(service: ServiceName, error: Exhausted) -> Exhausted:
    return Exhausted(
        f"Service {service!r} would run twice for a while, and there is no room for both. {error.message} "
        "With `order: stop-first` and the strategy rolling none stands beside another."
    )


def _common_zones(spec: AppSpec, services: Iterable[ServiceSpec]) -> tuple[str, ...]:
    """The zones that all of them allow; a name no zone has, where they allow none together."""
    wanted = [set(zones) for service in services if (zones := zones_of(spec, service))]
    if not wanted:
        return ()
    return tuple(sorted(set.intersection(*wanted))) or ("no common zone",)


def _connected(used: Mapping[Position, Iterable[str]]) -> list[list[Position]]:
    """Positions that share a disk, directly or through others, in the order they were given."""
    leader: dict[Position | str, Position | str] = {}

    def find(item: Position | str) -> Position | str:
        while leader.setdefault(item, item) != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    for position, disks in used.items():
        for disk in disks:
            leader[find(disk)] = find(position)
    groups: dict[Position | str, list[Position]] = {}
    for position in used:
        groups.setdefault(find(position), []).append(position)
    return list(groups.values())

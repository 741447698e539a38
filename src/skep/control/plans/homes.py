"""Whether an app runs on skep's own hosts or on a cluster, and whether what it asks for can be had there.

Networks do not reach from one to the other, so an app is in one place as a whole.  Pure.
"""

from collections.abc import Collection, Iterable, Iterator

from skep.control.plans import fixed_addresses
from skep.control.plans.plans import Facts, Plan
from skep.model.errors import Conflict, NotFound, Unsupported
from skep.model.ids import HostName, ZoneName
from skep.model.needs import Need, judges, needs_of
from skep.model.placement import parse_constraint
from skep.model.spec import AppSpec, ServiceSpec


def zones_of(spec: AppSpec, service: ServiceSpec) -> tuple[str, ...]:
    """The only zones that it may run in; empty: all."""
    return service.x_skep.zones or spec.x_skep.zones


def home_of(facts: Facts, spec: AppSpec) -> ZoneName | None:
    """The zone of the cluster that the app runs in, all of it; None: it runs on skep's own hosts.

    An app is in a cluster if it names its zone, or if there is nothing else.
    Raises:
        Conflict: it would be in two places, or in another than where it is.
        NotFound: it names no zone that has a host.
        Unsupported: its cluster does not have what a service asks for.
    """
    if facts.destination is not None:
        home = facts.destination.home
    else:
        _must_be_somewhere(facts, spec)
        home = _present(facts, spec) if facts.replicas else _chosen(facts, spec)
    if home is not None:
        _must_be_had(facts, spec, home)
    return home


def begins_in_cluster(spec: AppSpec, zones: Collection[ZoneName], clusters: Collection[ZoneName]) -> bool:
    """Whether its replicas come into a cluster while it has none.  `zones`: all in which there is a host."""
    asked = {zone for service in spec.services.values() for zone in named_zones(spec, service)}
    return not asked.isdisjoint(clusters) or (bool(clusters) and set(zones) <= set(clusters))


def keeps_snapshots(facts: Facts, host: HostName) -> bool:
    """Whether disks there have snapshots."""
    zone = facts.zones.get(host)
    return zone is None or Need.SNAPSHOTS not in facts.clusters.get(zone, ())


def remarks(plan: Plan, facts: Facts, spec: AppSpec) -> Iterator[str]:
    """What is otherwise in a cluster, and nobody would expect."""
    replaced = {one.service: one.host for one in plan.replicas if one.action in ("update", "stand-in")}
    bare = [
        name
        for name, host in replaced.items()
        if _writes(spec.services[name]) and not keeps_snapshots(facts, host)
    ]
    if bare:
        yield (
            f"No snapshot of the data is made before ({_services(bare)}): the zone has none. What the new "
            "revision writes stays if it is taken back or rolled back: keep a copy by the app's own means."
        )
    judged = [name for name in replaced if judges(spec, spec.services[name])]
    if plan.in_cluster and judged:
        yield (
            f"Nothing counts what is answered at endpoints of a cluster: {_services(judged)} is judged as a "
            "canary by readiness, restarts and health alone."
        )

    secured = [name for name, one in spec.services.items() if any(e.tls for e in one.x_skep.endpoints)]
    if plan.in_cluster and secured:
        yield (
            f"Whether who comes by HTTP is sent to HTTPS ({_services(secured)}) is for what leads requests "
            "into the cluster to decide."
        )


def _writes(service: ServiceSpec) -> bool:
    return any(one.type == "volume" and not one.read_only for one in service.mounts)


def _services(names: Iterable[str]) -> str:
    return ", ".join(f"service {name!r}" for name in names)


def _present(facts: Facts, spec: AppSpec) -> ZoneName | None:
    """Where its replicas are: they stay."""
    there = {facts.zones.get(row.host) for row in facts.replicas}
    home = next((zone for zone in facts.clusters if zone in there), None)
    for name, service in spec.services.items():
        named = named_zones(spec, service)
        if named and home is not None and home not in named:
            raise _elsewhere(spec, home, name, named)
        if named and home is None and named <= set(facts.clusters):
            raise _elsewhere(spec, None, name, named)
    return home


def _chosen(facts: Facts, spec: AppSpec) -> ZoneName | None:
    named = {name: named_zones(spec, service) for name, service in spec.services.items()}
    if not begins_in_cluster(spec, facts.zones.values(), facts.clusters):
        return None
    wanted = [zone for zone in facts.clusters if any(zone in zones for zones in named.values())]
    candidates = wanted or list(facts.clusters)
    fitting = [zone for zone in candidates if all(not zones or zone in zones for zones in named.values())]
    if any(zones and not zones & set(facts.clusters) for zones in named.values()):
        raise Conflict(
            f"Services of app {spec.name!r} would be in a cluster and on other hosts, and do not reach each "
            f"other then: name one zone for all of them, as with 'skep apply --zone {candidates[0]}'."
        )
    if len(fitting) != 1:
        raise Conflict(
            f"App {spec.name!r} must be in one of the clusters {_words(candidates)}, all of it: name "
            f"its zone, as with 'skep apply --zone {candidates[0]}'."
        )
    return fitting[0]


def named_zones(spec: AppSpec, service: ServiceSpec) -> set[str]:
    """Zones that it asks for by name."""
    asked = (parse_constraint(text) for text in service.placement.constraints)
    return {
        *zones_of(spec, service),
        *(one.value for one in asked if (one.key, one.operator) == ("node.zone", "==")),
    }


def _must_be_somewhere(facts: Facts, spec: AppSpec) -> None:
    known = {*facts.zones.values(), *facts.clusters}
    for name, service in spec.services.items():
        named = named_zones(spec, service)
        if named and known.isdisjoint(named):
            raise NotFound(
                f"Service {name!r} is to be in zone {_words(named)}, where there is no host, only in "
                f"{', '.join(sorted(known))}; see 'skep zone ls'."
            )


def _must_be_had(facts: Facts, spec: AppSpec, home: ZoneName) -> None:
    lacks = facts.clusters[home]
    asked = [
        f"service {name!r} {words}"
        for name, service in spec.services.items()
        for need, words in needs_of(spec, service).items()
        if need in lacks
    ]
    if Need.ADDRESSES not in lacks:
        asked += fixed_addresses.problems(spec, facts.ranges.get(home, ()))
    if asked:
        raise Unsupported(
            f"Zone {home!r} is a Kubernetes cluster, where this cannot be had: {'; '.join(asked)}."
        )


def _elsewhere(spec: AppSpec, home: ZoneName | None, service: str, named: set[str]) -> Conflict:
    where = "on skep's own hosts" if home is None else f"in zone {home!r}"
    return Conflict(
        f"App {spec.name!r} is {where}, and its replicas stay where they are; service {service!r} asks for "
        f"{_words(named)}. Move the app ('skep app move {spec.name} --to-zone {sorted(named)[0]}'), or apply "
        "it under another name."
    )


def _words(zones: Iterable[str]) -> str:
    return " or ".join(sorted(zones))

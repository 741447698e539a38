"""What a plan means: what restarts, what moves, who notices, what it takes and what it costs.  Pure."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from graphlib import TopologicalSorter
from typing import Any

import msgspec
import yaml

from skep.control.plans.plans import Facts, Plan, ReplicaChange
from skep.model.errors import InvalidInput
from skep.model.ids import Bytes, HostName
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, ServiceSpec, UpdateConfig
from skep.model.views.plans import HostNeed, PlanChange, ResourceChange, ServicePlan
from skep.schedule.candidates import Candidate

GIB = 1024**3
NEW_PROCESS = ("create", "update", "stand-in")
BESIDE = "stand-in"
DIGITS = 20
"""Of the digest in a mark."""


def services(plan: Plan, found: Facts, spec: AppSpec) -> Iterator[ServicePlan]:
    """Of each service that is not left as it is."""
    before = found.current.services if found.current else {}
    for name in dict.fromkeys([*before, *spec.services]):
        changes = [one for one in plan.replicas if one.service == name and one.action != "keep"]
        if changes or name in plan.republish or before.get(name) != spec.services.get(name):
            yield _service(name, changes, plan, found, spec)


def _service(
    name: ServiceName, changes: Sequence[ReplicaChange], plan: Plan, found: Facts, spec: AppSpec
) -> ServicePlan:
    places = {(row.service, row.ordinal): row.host for row in found.replicas}
    return ServicePlan(
        service=name,
        strategy=_strategy(changes, plan, spec.services.get(name), spec),
        before=sum(row.service == name for row in found.replicas),
        after=sum(one.service == name and one.action not in ("remove",) for one in plan.replicas),
        restarts=tuple(one.name for one in changes if one.action in NEW_PROCESS and one.previous),
        moves=tuple(
            f"{one.name} {places[one.service, one.ordinal]} → {one.host}"
            for one in changes
            if places.get((one.service, one.ordinal), one.host) != one.host
        ),
        touches=tuple(_touched(name, changes, plan, found, spec)),
        interruption=_interruption(name, changes, plan, found, spec),
    )


def _strategy(changes: Sequence[ReplicaChange], plan: Plan, wanted: ServiceSpec | None, spec: AppSpec) -> str:
    replaced = {one.action for one in changes if one.previous}
    if wanted is None or not replaced:
        return ""
    how = spec.x_skep.release.strategy
    if how != "rolling" and replaced == {BESIDE}:
        return how
    order = "start-first" if BESIDE in replaced else "stop-first"
    at_once = 1 if wanted.x_skep.stateful else config(plan, wanted).parallelism or "all"
    return f"rolling {order}, {at_once} at a time"


def config(plan: Plan, service: ServiceSpec) -> UpdateConfig:
    return service.rollback if plan.rollback else service.update


def _touched(
    name: ServiceName, changes: Sequence[ReplicaChange], plan: Plan, found: Facts, spec: AppSpec
) -> Iterator[str]:
    before = found.current.services.get(name) if found.current else None
    after = spec.services.get(name)
    was, will = _endpoints(before), _endpoints(after)
    if any(one.action != "start" for one in changes):
        yield from sorted(will | was)
    else:
        yield from sorted(will ^ was)
    if before is not None and (after is None or name in plan.republish):
        yield from (f"port {port.published or 'any'}/{port.protocol}" for port in before.ports)


def _endpoints(service: ServiceSpec | None) -> Set[str]:
    return {f"{one.host}{one.path}" for one in service.x_skep.endpoints} if service else set()


def _interruption(
    name: ServiceName, changes: Sequence[ReplicaChange], plan: Plan, found: Facts, spec: AppSpec
) -> str:
    present = [row for row in found.replicas if row.service == name and row.desired == "running"]
    wanted = spec.services.get(name)
    if not present:
        return ""
    if wanted is None:
        return "it is removed"
    if not wanted.replicas:
        return "it has no replica afterwards"
    in_place = [one for one in changes if one.action == "update" and one.before == "running"]
    leaving = [one for one in changes if one.action == "remove"]
    at_once = 1 if wanted.x_skep.stateful else config(plan, wanted).parallelism or len(in_place)
    if not in_place or len(present) - len(leaving) > min(at_once, len(in_place)):
        return ""
    if len(in_place) == 1:
        return "its only replica is replaced in its place: nothing answers until the new one is ready"
    return "all its replicas are replaced in their places at the same time (`parallelism` is that high)"


def order(document: str) -> tuple[tuple[str, ...], ...]:
    """The steps of a flow document in groups, each of which needs only what is in groups before it."""
    steps: Mapping[str, Any] = yaml.load(document, Loader=_Loader)["steps"]  # noqa: S506  (a safe one)
    sorter = TopologicalSorter({name: _needs(step) & steps.keys() for name, step in steps.items()})
    sorter.prepare()
    places = {name: number for number, name in enumerate(steps)}
    groups = []
    while sorter.is_active():
        ready = sorter.get_ready()
        groups.append(tuple(sorted(ready, key=places.__getitem__)))
        sorter.done(*ready)
    return tuple(groups)


def _needs(step: Mapping[str, Any]) -> Set[str]:
    """What it comes after, by name and by what it refers to."""
    written = msgspec.json.encode(step).decode()
    return {*step.get("after", ()), *_REFERENCE.findall(written)}


_REFERENCE = re.compile(r"\$([A-Za-z0-9_-]+)\.")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def peak(
    plan: Plan, spec: AppSpec, candidates: Iterable[Candidate], default_memory: Bytes, *, free: bool
) -> Iterator[HostNeed]:
    """The hosts that get something, when all that is new is there and all that is old is still there.

    A rolling release has no more stand-ins of a service at a time than its `parallelism`.  What is `free`
    on a host tells of others, so it is for operators.
    """
    needs: dict[HostName, tuple[float, int]] = {}
    for (service, host), count in _added(plan, spec).items():
        wanted, (cpus, memory) = spec.services[service].resources, needs.get(host, (0.0, 0))
        more = wanted.memory or default_memory
        needs[host] = cpus + count * (wanted.cpus or 0.0), memory + count * more
    for one in candidates:
        if one.host in needs:
            cpus, memory = needs[one.host]
            yield HostNeed(
                host=one.host,
                cpus=cpus,
                memory=Bytes(memory),
                cpus_free=one.cpus - one.promised_cpus if free else None,
                memory_free=Bytes(one.memory - one.promised_memory) if free else None,
            )


def _added(plan: Plan, spec: AppSpec) -> Counter[tuple[ServiceName, HostName]]:
    added = Counter((one.service, one.host) for one in plan.replicas if one.action == "create")
    beside = Counter((one.service, one.host) for one in plan.replicas if one.action == BESIDE)
    for (service, host), count in beside.items():
        update = config(plan, spec.services[service])
        rolling = spec.x_skep.release.strategy == "rolling" and update.parallelism
        added[service, host] += min(count, update.parallelism) if rolling else count
    return added


def resources(
    before: AppSpec | None,
    after: AppSpec,
    default_memory: Bytes,
    cpu_hour: float | None,
    memory_hour: float | None,
) -> ResourceChange:
    """`cpu_hour`, `memory_hour`: what a CPU, and a GiB of memory, costs for an hour."""
    then, now = _sum(after, default_memory), _sum(before, default_memory)
    replicas, cpus, memory = (one - other for one, other in zip(then, now, strict=True))
    cost = None
    if cpu_hour is not None or memory_hour is not None:
        cost = cpus * (cpu_hour or 0.0) + memory / GIB * (memory_hour or 0.0)
    return ResourceChange(replicas=int(replicas), cpus=cpus, memory=Bytes(int(memory)), cost=cost)


def _sum(spec: AppSpec | None, default_memory: Bytes) -> tuple[float, float, float]:
    of = spec.services.values() if spec else ()
    return (
        sum(one.replicas for one in of),
        sum(one.replicas * (one.resources.cpus or 0.0) for one in of),
        sum(one.replicas * (one.resources.memory or default_memory) for one in of),
    )


def in_force_when(shown: str) -> tuple[int, int]:
    """The version and the revision of the app that a mark was given for.

    Raises:
        InvalidInput: it is no mark.
    """
    version, _, rest = shown.partition(".")
    revision, _, digest = rest.partition(".")
    if not (version.isdecimal() and revision.isdecimal() and len(digest) == DIGITS):
        raise InvalidInput("This is no mark of a plan: make one with 'skep plan --out FILE'.")
    return int(version[:9]), int(revision[:9])


def mark(plan: Plan, spec: AppSpec, changes: Sequence[PlanChange], revision: int) -> str:
    """What a plan was made of and what it does: equal only for plans that do the same to the same.

    `revision`: the one in force.
    """
    digests = {name: info.digest for name, info in plan.images.items()}
    said = [(one.action, one.kind, one.name, one.reason) for one in changes]
    places = [(one.name, one.action, one.host) for one in plan.replicas if one.action != "create"]
    content = msgspec.json.encode((spec, digests, said, places), order="sorted")
    return f"{plan.base_version}.{revision}.{hashlib.sha256(content).hexdigest()[:DIGITS]}"

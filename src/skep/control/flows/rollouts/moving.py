"""The document of a move: the whole app beside itself, elsewhere, with what its disks hold (decision 26).

    images, disks, a copy while it runs, which is compared
    with disks:  the old side goes quiet and stops; what has changed follows; the new side starts
    without:     the new side starts; the old side goes quiet and stops
    ports, endpoints, finish

Within the new side services are admitted as they come, as those of a new app are: who depends on them finds
them.
"""

from collections.abc import Iterable

from skep.control.flows.rollouts.parts import (
    APP_WIDE,
    Parts,
    by_service,
    dependants,
    full,
    none,
    old_none,
    old_weights,
)
from skep.control.flows.rollouts.release import ENDPOINTS, add_disks, hosts_of
from skep.control.flows.writing import Steps, document, route, safe
from skep.control.plans.plans import DiskMove, Plan, ReplicaChange
from skep.model.names import ServiceName
from skep.model.spec import AppSpec

LEAVE = "leave"
"""The steps by which the old side goes quiet."""


class MovingParts(Parts):
    """Nobody has served over there until now."""

    def is_new(self, service: ServiceName) -> bool:
        return True


def move(plan: Plan, spec: AppSpec) -> str:
    """The flow by which the app of this specification comes to the plan's destination."""
    steps: Steps = {"begin": {"use": "release.begin", "with": {"release": plan.release}}}
    steps["recall"] = {
        "use": "traffic.recall",
        "with": {"services": list(plan.known_services.values())},
        "after": ["begin"],
    }
    steps["prepare"] = {"use": "release.claim", "with": {"release": plan.release}, "after": ["recall"]}
    made = add_disks(steps, plan)
    parts = MovingParts(plan, spec, steps, made)
    ready = [*made.values(), *_bring_images(parts)]
    if plan.moves:
        stopped = _stop_old(parts, [*ready, *_copy(steps, plan, made, ready)])
        _start_new(parts, _catch_up(steps, plan, made, stopped) or stopped)
    else:
        _start_new(parts, ready)
        _stop_old(parts, [*steps])
    _publish(parts)
    if services := [name for name, one in spec.services.items() if one.x_skep.endpoints]:
        parts.tell(ENDPOINTS, services, list(steps))
    steps["finish"] = {"use": "release.finish", "with": {"release": plan.release}, "after": list(steps)}
    return document("app.move", f"app/{plan.app}", steps)


def _bring_images(parts: Parts) -> list[str]:
    """Before anything stops; once for each service and host."""
    first = {(change.service, change.host): change for change in reversed(parts.starting)}
    for change in first.values():
        values = {"container": change.container}
        parts.steps[f"{change.name}-image"] = route("image.unpack", change.host, values, ["prepare"])
    return [f"{change.name}-image" for change in first.values()]


def _copied(plan: Plan) -> Iterable[DiskMove]:
    return (one for one in plan.moves if one.copied)


def _copy(steps: Steps, plan: Plan, made: dict[str, str], after: list[str]) -> list[str]:
    """Answers the steps after which each target holds what its source held."""
    for one in _copied(plan):
        disk = made[one.name]
        steps[f"{disk}-first"] = {"use": "disk.copy", "with": _both(one), "after": after}
        target = {"disk": one.target, "host": one.target_host}
        steps[f"{disk}-compared"] = {
            "use": "disk.compare",
            "with": {**target, "digest": f"${{{disk}-first.digest}}"},
            "after": [f"{disk}-first"],
        }
    return [f"{made[one.name]}-compared" for one in _copied(plan)]


def _catch_up(steps: Steps, plan: Plan, made: dict[str, str], after: list[str]) -> list[str]:
    for one in _copied(plan):
        disk = made[one.name]
        steps[f"{disk}-last"] = {
            "use": "disk.catch_up",
            "with": {**_both(one), "seal": f"${{{disk}-first.seal}}"},
            "after": [f"{disk}-compared", *after],
        }
    return [f"{made[one.name]}-last" for one in _copied(plan)]


def _both(one: DiskMove) -> dict[str, str]:
    return {
        "source": one.source,
        "source_host": one.source_host,
        "target": one.target,
        "target_host": one.target_host,
    }


def _stop_old(parts: Parts, after: list[str]) -> list[str]:
    """No more connections, then stop, dependants first; answers the steps after which nothing runs."""
    old = [change for change in parts.plan.replicas if change.previous is not None]
    ids = list(dict.fromkeys(change.service for change in old))
    told = parts.shift(LEAVE, old_none(old), old_weights(old), ids, after, words=APP_WIDE)
    for change in old:
        if change.before == "running":
            parts.drain(change, change.previous or "", change.previous_host or change.host, [told])
    nodes = by_service(old)
    for change in old:
        drained = f"{change.name}-drain" if change.before == "running" else told
        users = dependants(parts.spec, change.service, nodes)
        parts.halt_old(change, [drained, *(f"{node}-old" for node in users)])
    return [f"{change.name}-old" for change in old]


def _start_new(parts: Parts, after: list[str]) -> None:
    for name in parts.spec.services:
        changes = [change for change in parts.starting if change.service == name]
        for change in changes:
            parts.make(change, [*parts.needs(change), *after])
        if changes:
            _admit(parts, name, changes)


def _admit(parts: Parts, name: ServiceName, changes: list[ReplicaChange]) -> None:
    ends = [parts.prove(change) for change in changes]
    parts.shift(name, full(changes), none(changes), [name], ends)
    for change in changes:
        parts.complete(change)


def _publish(parts: Parts) -> None:
    for name in parts.plan.republish:
        for host in hosts_of(parts.plan, name):
            step = (
                f"{name}-publish" if f"{name}-publish" not in parts.steps else f"{name}-publish-{safe(host)}"
            )
            values = {"service": parts.plan.services[name], "host": host}
            parts.steps[step] = route("network.publish", host, values, [f"{name}-admitted"])

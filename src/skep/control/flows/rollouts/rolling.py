"""Service by service, in batches, as its `update_config` says.

What stands in its own place is withdrawn, drained and stopped before the new container starts there; a
stand-in is proven first, and then takes the connections over.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from skep.control.flows.rollouts.parts import Parts, full, none, old_none, old_weights, patience
from skep.control.flows.writing import route
from skep.control.plans.plans import ReplicaChange
from skep.model.names import ServiceName
from skep.model.spec import UpdateConfig


def service(parts: Parts, name: ServiceName) -> None:
    """Everything that starts of one service."""
    changes = [change for change in parts.starting if change.service == name]
    newcomers(parts, name, [change for change in changes if change.action in ("create", "start")])
    replaced = [change for change in changes if change.action in ("update", "stand-in")]
    batches(parts, name, replaced)


def newcomers(parts: Parts, name: ServiceName, changes: Sequence[ReplicaChange]) -> None:
    """Replicas that nothing has to make room for; they are admitted together once all are ready."""
    created = [change for change in changes if change.action == "create"]
    for change in changes:
        start(parts, change)
    if created:
        before = none(created)
        ends = [parts.prove(change) for change in changes]
        # Of a service that is new nobody was told anything: there is nothing to tell again on the way back.
        parts.shift(name, full(created), before, [name], ends, recall=not parts.is_new(name))
    elif changes:
        ends = [parts.prove(change) for change in changes]
        parts.tell(f"{name}-admitted", [name], ends)
    for change in changes:
        parts.complete(change)


def start(parts: Parts, change: ReplicaChange, after: Iterable[str] = ()) -> None:
    act = parts.resume if change.action == "start" else parts.make
    act(change, [*parts.needs(change), *after])


def batches(parts: Parts, name: ServiceName, changes: Sequence[ReplicaChange]) -> None:
    """One after the other; the highest ordinal of a stateful service first, as StatefulSets have it."""
    config = parts.config(name)
    stateful = parts.spec.services[name].x_skep.stateful
    ordered = sorted(changes, key=lambda change: change.ordinal, reverse=stateful)
    last: list[str] = []
    judged = ""
    for number, batch in enumerate(_split(ordered, 1 if stateful else config.parallelism), start=1):
        prefix = f"{name}-batch-{number}"
        if number > 1:
            last = parts.wait(f"{prefix}-wait", config.delay, last)
        _clear(parts, prefix, batch, last)
        ends = [_try(parts, change, config) for change in batch]
        if tolerant(config):
            ends = _judge(parts, prefix, batch, config, len(ordered), judged)
            judged = f"{prefix}-verdict"
        last = _admit(parts, prefix, batch, ends)
        for change in batch:
            parts.complete(change)


def tolerant(config: UpdateConfig) -> bool:
    """Whether a replica that fails is not the end of the release at once."""
    return config.max_failure_ratio > 0 or config.failure_action != "rollback"


def _split(changes: Sequence[ReplicaChange], size: int) -> Iterator[Sequence[ReplicaChange]]:
    size = size or len(changes) or 1
    for index in range(0, len(changes), size):
        yield changes[index : index + size]


def _clear(parts: Parts, prefix: str, batch: Sequence[ReplicaChange], last: list[str]) -> None:
    """Up to the start of every container of the batch."""
    inside = [change for change in batch if change.action == "update"]
    for change in batch:
        if change.action == "stand-in":
            start(parts, change, last)
    for change in inside:
        _furnish(parts, change, [*parts.needs(change), *last])
    if inside:
        gone = _withdraw(parts, prefix, inside, [f"{change.name}-furnish" for change in inside])
        for change in inside:
            _swap(parts, change, gone)


def _furnish(parts: Parts, change: ReplicaChange, after: Iterable[str]) -> None:
    """All that the new container needs, while the old one runs."""
    flow = "replica.refurnish" if change.new_system_disk is None else "replica.furnish"
    values = {"container": change.container, "disk": change.system_disk, "host": change.host}
    parts.steps[f"{change.name}-furnish"] = {"flow": flow, "with": values, "after": list(after)}


def _withdraw(parts: Parts, prefix: str, batch: Sequence[ReplicaChange], after: list[str]) -> str:
    """No new connections to the replicas; from now on their containers are the new ones."""
    services = [change.service for change in batch]
    ids = parts.service_ids(services)
    parts.steps[f"{prefix}-back"] = {"use": "traffic.recall", "with": {"services": ids}, "after": after}
    values = {
        "weights": none(batch),
        "before": old_weights(batch),
        "containers": {change.replica: change.container for change in batch},
        "previous": {change.replica: change.previous for change in batch},
    }
    parts.steps[f"{prefix}-withdraw"] = {
        "use": "rollout.withdraw",
        "with": values,
        "after": [f"{prefix}-back"],
    }
    return parts.tell(f"{prefix}-withdrawn", services, [f"{prefix}-withdraw"])


def _swap(parts: Parts, change: ReplicaChange, gone: str) -> None:
    running = change.before == "running"
    previous = change.previous or change.container
    latest = parts.drain(change, previous, change.host, [gone]) if running else gone
    values: dict[str, Any] = {"container": previous, "running": running}
    parts.steps[f"{change.name}-stop"] = route("engine.halt", change.host, values, [latest])
    latest = f"{change.name}-stop"
    if change.snapshots:
        kept = {one.disk: one.id for one in change.snapshots}
        back = [one.disk for one in change.snapshots if one.restore]
        parts.steps[f"{change.name}-snapshot"] = route(
            "disk.snapshot", change.host, {"snapshots": kept, "restore": back}, [latest]
        )
        latest = f"{change.name}-snapshot"
    then = {one.disk: one.then for one in change.snapshots if one.then is not None}
    if then:
        parts.steps[f"{change.name}-data"] = route("disk.restore", change.host, {"snapshots": then}, [latest])
        latest = f"{change.name}-data"
    parts.steps[change.name] = route("engine.start", change.host, {"container": change.container}, [latest])


def _try(parts: Parts, change: ReplicaChange, config: UpdateConfig) -> str:
    if not tolerant(config):
        return parts.prove(change)
    values = {
        "container": change.container,
        "patience": patience(parts.spec.services[change.service].healthcheck),
        "seconds": config.monitor,
        "grace": parts.grace(change),
    }
    parts.steps[f"{change.name}-ready"] = route("rollout.attempt", change.host, values, [change.name])
    return f"{change.name}-ready"


def _judge(
    parts: Parts,
    prefix: str,
    batch: Sequence[ReplicaChange],
    config: UpdateConfig,
    total: int,
    earlier: str,
) -> list[str]:
    """Go on, go back, or ask; answers the steps after which it goes on."""
    verdict = f"{prefix}-verdict"
    parts.steps[verdict] = {
        "use": "rollout.judge",
        "with": {
            "outcomes": [f"${{{change.name}-ready}}" for change in batch],
            "earlier": f"${{{earlier}.problems}}" if earlier else [],
            "replicas": total,
            "ratio": config.max_failure_ratio,
            "action": config.failure_action,
        },
    }
    if config.failure_action != "pause":
        return [verdict]
    parts.steps[f"{prefix}-approval"] = {
        "wait": "approval",
        "when": f"${{{verdict}.over}}",
        "with": {"message": f"${{{verdict}.words}} Go on with the release?"},
        "after": [verdict],
    }
    return [f"{prefix}-approval"]


def _admit(parts: Parts, prefix: str, batch: Sequence[ReplicaChange], ends: list[str]) -> list[str]:
    """Connections to what is new, and none to what is old; answers the last steps."""
    beside = [change for change in batch if change.action == "stand-in"]
    weights = full(batch) | old_none(beside)
    before = none(batch) | old_weights(beside)
    told = parts.shift(prefix, weights, before, [change.service for change in batch], ends)
    if not beside:
        return [told]
    for change in beside:
        drained = parts.drain(change, change.previous or "", change.previous_host or change.host, [told])
        parts.halt_old(change, [drained])
    return [told, *(f"{change.name}-old" for change in beside)]

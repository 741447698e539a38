"""A share of the connections for what is new, in steps; after each it is compared with what is old.

The last step is that of an atomic release: one switch, and time to go back.
"""

from skep.control.flows.rollouts import atomic
from skep.control.flows.rollouts.parts import APP_WIDE, Parts, none, old_weights
from skep.control.flows.writing import route
from skep.control.plans.plans import ReplicaChange
from skep.model.ids import ReplicaId
from skep.model.names import ServiceName


def release(parts: Parts) -> None:
    after = atomic.prepare(parts)
    new = [change for change in parts.starting if change.action == "stand-in"]
    before = none(new) | old_weights(new)
    for percent in parts.spec.x_skep.release.steps if new else ():
        weights = _weights(new, percent)
        after = _step(parts, new, percent, weights, before, after)
        before = weights
    atomic.switch(parts, after)


def _weights(new: list[ReplicaChange], percent: int) -> dict[ReplicaId, int]:
    """Each stands beside the one it replaces, so that both have the share of two."""
    weights = {change.replica: percent for change in new}
    return weights | {change.replaces: 100 - percent for change in new if change.replaces is not None}


def _step(
    parts: Parts,
    new: list[ReplicaChange],
    percent: int,
    weights: dict[ReplicaId, int],
    before: dict[ReplicaId, int],
    after: list[str],
) -> list[str]:
    """Shift, count, wait, compare; answers the steps that judged."""
    name = f"canary-{percent}-percent"
    services = atomic.services_of(new)
    told = parts.shift(name, weights, before, services, after, words=APP_WIDE)
    parts.steps[f"{name}-counted"] = {
        "use": "rollout.count",
        "with": {"services": parts.service_ids(services), "revision": parts.plan.revision},
        "after": [told],
    }
    for change in new:
        parts.steps[f"{change.name}-at-{percent}-percent"] = route(
            "rollout.restarts", change.host, {"container": change.container}, [told]
        )
    counted = [f"{name}-counted", *(f"{change.name}-at-{percent}-percent" for change in new)]
    waited = parts.wait(f"{name}-wait", parts.spec.x_skep.release.interval, counted)
    judged = [_compare(parts, service, percent, name, waited) for service in services]
    return judged + [_still_well(parts, change, percent, waited) for change in new]


def _compare(parts: Parts, service: ServiceName, percent: int, name: str, after: list[str]) -> str:
    policy = parts.spec.x_skep.release
    step = f"{service}-at-{percent}-percent-judged"
    parts.steps[step] = {
        "use": "rollout.compare",
        "with": {
            "service": parts.service_ids([service])[0],
            "revision": parts.plan.revision,
            "before": f"${{{name}-counted}}",
            "max_error_rate": policy.max_error_rate,
            "max_latency": policy.max_latency,
        },
        "after": after,
    }
    return step


def _still_well(parts: Parts, change: ReplicaChange, percent: int, after: list[str]) -> str:
    """What a health check and restarts say, also of what has no endpoint."""
    step = f"{change.name}-well-at-{percent}-percent"
    values = {"container": change.container, "restarts": f"${{{change.name}-at-{percent}-percent}}"}
    parts.steps[step] = route("rollout.still_well", change.host, values, after)
    return step

"""How many replicas a service is to have, by what they do.  Pure: what was seen in, a number out.

Each target asks for `ceil(replicas * seen / target)`, unless the two differ by less than a tenth; the highest
wins.  Replicas that could not be measured count as idle when there are to be more, and as just busy enough
when there are to be fewer.  That is the algorithm of the Kubernetes horizontal pod autoscaler, with its
tolerance, its bound for one step, and its stabilisation windows as cool-downs:
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
"""

import math
from collections.abc import Iterable, Iterator

import msgspec

from skep.model.names import ServiceName
from skep.model.spec import AppSpec, Autoscale, ServiceSpec

TOLERANCE = 0.1
LEAST_STEP = 4
"""Replicas that may be added at once, however few there are; else as many as there are."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a service with `replicas` does now; None: not known.

    `cpu` and `memory` are percent of the limits, on average over the `measured` replicas; `requests` per
    second of all together; `latency` seconds.  `quiet`: seconds since the last request; `called`: there was
    one since the last replica went.
    """

    replicas: int
    measured: int = 0
    cpu: float | None = None
    memory: float | None = None
    requests: float | None = None
    latency: float | None = None
    quiet: float | None = None
    called: bool = False


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """A number of replicas, since when it seemed right, and why."""

    time: float
    replicas: int
    why: str = ""


def opinion(policy: Autoscale, seen: Seen, now: float) -> Opinion:
    """What would be right for what is seen at this moment."""
    if seen.replicas == 0:
        wanted = 1 if seen.called else 0
        return Opinion(time=now, replicas=_within(policy, wanted), why="a request came" if wanted else "")
    if policy.min == 0 and seen.quiet is not None and seen.quiet >= policy.idle:
        return Opinion(time=now, replicas=0, why=f"no request for {policy.idle:g} s")
    asked = [*_asked(policy, seen)]
    if not asked:
        return Opinion(time=now, replicas=_within(policy, seen.replicas))
    wanted, why = max(asked, key=lambda one: one[0])
    most = max(2 * seen.replicas, LEAST_STEP)
    return Opinion(time=now, replicas=max(1, _within(policy, min(wanted, most))), why=why)


def decide(policy: Autoscale, replicas: int, opinions: Iterable[Opinion], now: float) -> Opinion:
    """More only if that seemed right all through `up_cooldown`, fewer only if all through `down_cooldown`.

    Who sees a service for the first time begins with the opinion that it is right as it is.  Whom a request
    wakes does not wait.
    """
    held = [*opinions]
    last = held[-1]
    if replicas == 0 and last.replicas > 0:
        return last
    lowest = min(_since(held, now - policy.up_cooldown), key=lambda one: one.replicas)
    highest = max(_since(held, now - policy.down_cooldown), key=lambda one: one.replicas)
    if replicas < lowest.replicas:
        return lowest
    if replicas > highest.replicas:
        return highest
    return Opinion(time=now, replicas=replicas)


def kept(spec: AppSpec, current: AppSpec | None) -> AppSpec:
    """The app with the numbers that its services have come to, within their bounds."""
    services = {
        name: _kept(service, current.services.get(name) if current else None)
        for name, service in spec.services.items()
    }
    return msgspec.structs.replace(spec, services=services)


def in_words(policy: Autoscale) -> str:
    """`2 to 10 replicas by cpu 50%, latency 0.2s`."""
    targets = {"cpu": "%", "memory": "%", "requests": "/s each", "latency": "s"}
    said = [
        f"{name} {getattr(policy, name):g}{unit}" for name, unit in targets.items() if getattr(policy, name)
    ]
    return f"{policy.min} to {policy.max} replicas by {', '.join(said) or 'requests at all'}"


def of(spec: AppSpec) -> dict[ServiceName, Autoscale]:
    return {name: one.x_skep.scale for name, one in spec.services.items() if one.x_skep.scale is not None}


def _kept(service: ServiceSpec, before: ServiceSpec | None) -> ServiceSpec:
    policy = service.x_skep.scale
    if policy is None:
        return service
    count = before.replicas if before is not None else service.replicas
    return msgspec.structs.replace(service, replicas=_within(policy, count))


def _within(policy: Autoscale, count: int) -> int:
    return min(max(count, policy.min), policy.max)


def _since(opinions: list[Opinion], start: float) -> list[Opinion]:
    return [one for one in opinions if one.time >= start] or opinions[-1:]


def _asked(policy: Autoscale, seen: Seen) -> Iterator[tuple[int, str]]:
    if policy.cpu is not None and seen.cpu is not None:
        yield _measured(seen, seen.cpu, policy.cpu), f"cpu {seen.cpu:.0f}% of {policy.cpu}%"
    if policy.memory is not None and seen.memory is not None:
        yield _measured(seen, seen.memory, policy.memory), f"memory {seen.memory:.0f}% of {policy.memory}%"
    if policy.requests is not None and seen.requests is not None:
        each = seen.requests / seen.replicas
        why = f"{each:.1f} requests/s of {policy.requests:g} for each"
        yield _times(seen.replicas, each / policy.requests), why
    if policy.latency is not None and seen.latency is not None:
        why = f"latency {seen.latency:.3f} s of {policy.latency:g} s"
        yield _times(seen.replicas, seen.latency / policy.latency), why


def _times(replicas: int, ratio: float) -> int:
    if abs(ratio - 1) <= TOLERANCE:
        return replicas
    return math.ceil(replicas * ratio - 1e-9)


def _measured(seen: Seen, value: float, target: float) -> int:
    """With replicas of which nothing is known: they never turn more into fewer, or fewer into more."""
    unknown = max(0, seen.replicas - seen.measured)
    assumed = 0.0 if value > target else target
    average = (value * seen.measured + assumed * unknown) / max(1, seen.measured + unknown)
    wanted = _times(seen.replicas, average / target)
    return max(wanted, seen.replicas) if value > target else min(wanted, seen.replicas)

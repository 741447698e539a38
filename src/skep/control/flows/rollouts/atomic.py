"""The whole app at once: stand-ins of all that changes, one shift for all of them, and time to go back.

What cannot stand beside itself is replaced in its place before, and what is new is admitted as it comes:
nobody has seen either of them serve.
"""

from collections.abc import Sequence

from skep.control.flows.rollouts import rolling
from skep.control.flows.rollouts.parts import APP_WIDE, Parts, full, none, old_none, old_weights
from skep.control.plans.plans import ReplicaChange
from skep.model.names import ServiceName

SWITCH = "switch"


def release(parts: Parts) -> None:
    """Everything that starts, and everything that goes."""
    proven = prepare(parts)
    switch(parts, proven)


def prepare(parts: Parts) -> list[str]:
    """The second set, without connections; answers the steps after which all of it is proven."""
    for name in parts.spec.services:
        changes = [change for change in parts.starting if change.service == name]
        if parts.is_new(name):
            rolling.newcomers(parts, name, changes)
            continue
        resumed = [change for change in changes if change.action == "start"]
        rolling.newcomers(parts, name, resumed)
        rolling.batches(parts, name, [change for change in changes if change.action == "update"])
    ends = list(parts.steps)
    second = second_set(parts)
    for change in second:
        rolling.start(parts, change)
        ends.append(parts.prove(change))
        parts.complete(change)
    return ends


def second_set(parts: Parts) -> list[ReplicaChange]:
    """What waits for the switch: stand-ins, and more replicas of services that are there."""
    return [
        change
        for change in parts.starting
        if change.action == "stand-in" or (change.action == "create" and not parts.is_new(change.service))
    ]


def switch(parts: Parts, after: list[str]) -> None:
    """One transaction for all services; the old set is left whole for `drain`, and then stops."""
    second, leaving = second_set(parts), parts.leaving
    if not second and not leaving:
        return
    weights = full(second) | old_none(second) | none(leaving)
    before = none(second) | old_weights([*_replacing(second), *leaving])
    told = parts.shift(SWITCH, weights, before, services_of([*second, *leaving]), after, words=APP_WIDE)
    old = [*_replacing(second), *leaving]
    if not old:
        return
    drained = parts.wait("drain", parts.spec.x_skep.release.drain, [told])
    for change in old:
        parts.halt_old(change, drained)


def services_of(changes: Sequence[ReplicaChange]) -> list[ServiceName]:
    return list(dict.fromkeys(change.service for change in changes))


def _replacing(changes: Sequence[ReplicaChange]) -> list[ReplicaChange]:
    return [change for change in changes if change.replaces is not None]

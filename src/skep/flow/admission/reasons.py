"""Says why a ticket waits, in a sentence."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice

from msgspec import Struct

from skep.flow.admission.entries import Entry
from skep.flow.admission.limits import Meter
from skep.flow.admission.priorities import Lane, Lanes
from skep.flow.admission.tickets import Ticket
from skep.flow.runs import Priority, Reason

MOST_NAMED = 20
"""Holders in a reason; the message gives their number."""
_FEW_NAMED = 3


class Scene(Struct, frozen=True):
    """What it looks like now; `time` is the time of day, `now` that by which rates go."""

    now: float
    time: float
    slots: int
    lanes: Lanes
    running: Mapping[Ticket, Entry | None]


def explain(ticket: Ticket, entry: Entry | None, scene: Scene) -> Reason:
    """A limit or a rate if one is in its way, else other tenants, else the slots."""
    if entry is None:
        return _not_waiting(ticket, ticket in scene.running)
    for meter in entry.meters:
        if meter.full():
            return _limit(meter)
    for meter in entry.meters:
        if not meter.room(scene.now, scene.slots):
            return _rate(meter, scene)
    lane = scene.lanes.all[ticket.priority]
    line = entry.line or lane.line
    tenants = line.before(ticket.tenant)
    return _fairness(lane, tenants, scene) if tenants else _slot(entry, lane, scene)


def _not_waiting(ticket: Ticket, running: bool) -> Reason:
    if running:
        return Reason(kind="running", subject=ticket.step, message="It has been let go and begins.")
    return Reason(kind="slot", subject=ticket.step, message="It has not asked for a slot yet.")


def _limit(meter: Meter) -> Reason:
    if not meter.concurrency:
        message = f"Nothing that counts on {meter.key} may begin: its limit is 0."
    else:
        used = f"{len(meter.holders)} of {meter.concurrency}"
        message = f"{meter.key} is in use by {used}: {_named(map(name, meter.holders), len(meter.holders))}."
    message = f"{message}{_others(meter.parked - 1)}"
    return Reason(kind="limit", subject=meter.key, message=message, holders=_holders(meter.holders))


def _rate(meter: Meter, scene: Scene) -> Reason:
    bucket = meter.bucket
    assert bucket is not None  # noqa: S101  (only a rate leaves no room where the limit does)
    until = datetime.fromtimestamp(scene.time + max(0.0, bucket.due() - scene.now), UTC)
    message = f"{meter.key} lets {bucket.rate:g} a second pass, the next one at {until:%H:%M:%S.%f} UTC."
    message = f"{message}{_others(meter.parked - 1)}"
    return Reason(kind="rate", subject=meter.key, message=message, until=until)


def _fairness(lane: Lane, tenants: list[str], scene: Scene) -> Reason:
    names = _named((tenant or "the platform" for tenant in tenants), len(tenants))
    verb = "goes" if len(tenants) == 1 else "go"
    plural = "tenant" if len(tenants) == 1 else "tenants"
    message = f"{_taken(lane, scene)} {len(tenants)} {plural} that had less {verb} before it: {names}."
    return Reason(kind="fairness", subject=_word(lane), message=message, holders=tuple(tenants[:MOST_NAMED]))


def _slot(entry: Entry, lane: Lane, scene: Scene) -> Reason:
    older = entry.line.waits_before(entry) if entry.line else 0
    higher = sum(other.ready for other in scene.lanes.all[: lane.priority])
    message = _taken(lane, scene)
    if older:
        message += f" {_count(older, 'older step')} of its tenant {_goes(older)} before it."
    if higher:
        message += f" {_count(higher, 'step')} of higher priority {_goes(higher)} before it."
    return Reason(kind="slot", subject=_word(lane), message=message, holders=_holders(scene.running))


def _taken(lane: Lane, scene: Scene) -> str:
    """Which slots are taken, and by whom."""
    running = scene.running
    by_priority = Counter(ticket.priority for ticket in running)
    lanes = ", ".join(f"{number} {_PRIORITIES[priority]}" for priority, number in sorted(by_priority.items()))
    tenants = Counter(ticket.tenant or "the platform" for ticket in running).most_common(_FEW_NAMED)
    most = ", ".join(f"{tenant} {number}" for tenant, number in tenants)
    full = next((other for other in reversed(scene.lanes.all) if _full(other, scene.lanes)), None)
    if full is None or full.priority > lane.priority:
        return "A slot is free; it is about to go."
    taken = f"{scene.slots} of {scene.slots} slots are taken"
    if len(running) < scene.slots:
        taken = f"{full.ceiling} of {scene.slots} slots are all that {_among(full)} may take"
    return f"{taken} ({lanes}; most by tenant {most})."


def _among(lane: Lane) -> str:
    last = lane.priority == max(Priority)
    return f"{_word(lane)} work" if last else f"{_word(lane)} and lower work"


def _full(lane: Lane, lanes: Lanes) -> bool:
    return sum(other.running for other in lanes.all[lane.priority :]) >= lane.ceiling


def name(ticket: Ticket) -> str:
    """`run/step`."""
    return f"{ticket.run}/{ticket.step}"


def _holders(tickets: Iterable[Ticket]) -> tuple[str, ...]:
    return tuple(name(ticket) for ticket in islice(tickets, MOST_NAMED))


def _named(names: Iterable[str], number: int) -> str:
    shown = ", ".join(islice(names, _FEW_NAMED))
    return f"{shown} and {number - _FEW_NAMED} more" if number > _FEW_NAMED else shown


def _others(number: int) -> str:
    if number < 1:
        return ""
    return f" {number} {'other waits' if number == 1 else 'others wait'} for it, too."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _goes(number: int) -> str:
    return "goes" if number == 1 else "go"


def _word(lane: Lane) -> str:
    return _PRIORITIES[lane.priority]


_PRIORITIES = {priority.value: priority.name.lower() for priority in Priority}

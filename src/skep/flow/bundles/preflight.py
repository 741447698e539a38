"""What would become of each run under way if another version were activated.  Pure decisions."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from skep.flow.definition.binding import every_step
from skep.flow.definition.plan import Flow, Plan, PlannedStep
from skep.flow.runs import RunRow, StepRow, StepState
from skep.flow.steps import RunId

Verdict = Literal["finishes on old", "can be migrated", "blocked"]
Misfit = Callable[[PlannedStep, bytes], str | None]
"""Why a stored result does not fit the new code of its step; None if it does."""

MOST_NAMED = 10
"""Items of one fan-out that are named."""
_ENDED = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})


class Fate(msgspec.Struct, frozen=True):
    """`version`: the hashes of the bundle that the run is pinned to.

    `reasons`: why the run cannot be migrated; of one that is blocked also why it cannot go on as it is.
    """

    run: RunId
    flow: str
    versions: tuple[str, ...]
    verdict: Verdict
    reasons: tuple[str, ...] = ()


class Preflight(msgspec.Struct, frozen=True):
    """Of all unfinished runs that are pinned to other versions of the bundle of this hash."""

    hash: str
    fates: tuple[Fate, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(fate.verdict == verdict for fate in self.fates)


def judge(run: RunRow, versions: Sequence[str], lost: str, obstacles: Sequence[str]) -> Fate:
    """`lost`: why the old code cannot be loaded, or ""; `obstacles`: why the run cannot be migrated."""
    if not obstacles:
        return Fate(run.id, run.flow, tuple(versions), "can be migrated")
    if not lost:
        return Fate(run.id, run.flow, tuple(versions), "finishes on old", tuple(obstacles))
    return Fate(run.id, run.flow, tuple(versions), "blocked", (lost, *obstacles))


def migration(
    old: Plan, run: RunRow, rows: Mapping[str, StepRow], new: Flow, misfit: Misfit
) -> Plan | tuple[str, ...]:
    """The plan that the run goes on with, or everything that stands in the way.

    A step that has begun, or may have, must be in the new plan with the same code and wiring, after nothing
    but steps that have ended; and what it left must be readable by the new code.
    """
    obstacles = [*_of_run(old, run, new.plan)]
    then = {step.name: step for step in old.steps}
    now = {step.name: step for step in new.plan.steps}
    begun = _begun(old, run, rows)
    ended = {name for name, row in rows.items() if row.state in _ENDED}
    for name in begun:
        if name not in now:
            obstacles.append(f"step {name} has begun, and the new version has none of that name")
        elif name not in then or _meaning(then[name]) != _meaning(now[name]):
            obstacles.append(f"step {name} has begun, and the new version calls it in another way")
        else:
            obstacles += _too_early(new.plan, now[name], ended)
            obstacles += _unreadable(now[name], rows, misfit)
    return tuple(obstacles) or new.plan


def _of_run(old: Plan, run: RunRow, new: Plan) -> list[str]:
    obstacles = []
    if run.cause:
        obstacles.append("it is being undone")
    if (old.locks, old.limits) != (new.locks, new.limits):
        obstacles.append("the new version takes other locks or limits, and the run holds its own already")
    return obstacles


def _begun(plan: Plan, run: RunRow, rows: Mapping[str, StepRow]) -> list[str]:
    """The nodes of which something has begun, or may have: a start is recorded late."""
    ended = {name for name, row in rows.items() if row.state in _ENDED}
    seen = {
        re.split(r"\[", name, maxsplit=1)[0]
        for name, row in rows.items()
        if row.state is not StepState.PENDING
    }
    if run.started is not None:
        names = [step.name for step in plan.steps]
        seen |= {step.name for step in plan.steps if all(names[index] in ended for index in step.after)}
    known = [step.name for step in plan.steps if step.name in seen]
    return [*known, *sorted(seen.difference(known))]


def _too_early(plan: Plan, step: PlannedStep, ended: set[str]) -> list[str]:
    missing = [plan.steps[index].name for index in step.after if plan.steps[index].name not in ended]
    return [f"step {step.name} has begun, and in the new version it waits for {name}" for name in missing]


def _unreadable(step: PlannedStep, rows: Mapping[str, StepRow], misfit: Misfit) -> list[str]:
    """Of the step itself, or of each of its items."""
    inner = {planned.name: planned for planned in every_step((step,)) if planned.each is None and planned.use}
    found: list[str] = []
    for name, row in rows.items():
        if name != step.name and not name.startswith(f"{step.name}["):
            continue
        planned = inner.get(re.sub(r"\[\d+\]", "", name))
        if planned is not None and row.result is not None and (reason := misfit(planned, row.result)):
            found.append(f"the result of step {name} does not fit the new code: {reason}")
    return found[:MOST_NAMED]


def _meaning(step: PlannedStep) -> PlannedStep:
    """What the step does; not when, how often it is tried, how long it may take, and whose code it is."""
    return msgspec.structs.replace(_essence(step), after=())


def _essence(step: PlannedStep) -> PlannedStep:
    each = step.each
    if each is not None:
        each = msgspec.structs.replace(each, steps=tuple(map(_essence, each.steps)), parallel=None)
    return msgspec.structs.replace(
        step, bundle="", retry=None, timeout=None, limits=(), priority=None, each=each
    )

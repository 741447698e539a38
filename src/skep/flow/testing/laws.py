"""The laws: whatever fails, crashes or comes twice, the world is complete or as if nothing had begun.

    await check_three_laws(registry, "replica.create", {"replica": "web-0"}, worlds, tmp_path)

`worlds()` opens a fresh world for each trial.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skep.flow.definition.plan import Flow
from skep.flow.definition.registry import Registry
from skep.flow.engine import FlowEngine
from skep.flow.execution.back import UNDO_TRIES
from skep.flow.execution.operator import Choice
from skep.flow.runs import RunState
from skep.flow.steps import RunId
from skep.flow.testing.deliveries import Deliveries
from skep.flow.testing.injection import Around, Failing, both, failing, repeating, untouched
from skep.flow.testing.trial import Death, Operator
from skep.flow.testing.trials import Databases, End, Trials, compare
from skep.flow.testing.worlds import Worlds

PAUSE = 0.01
"""Seconds."""
DISTURBANCES = 10
"""Seeds that are tried."""

Law = Callable[[Trials], Awaitable[int]]
"""Answers how many trials were made.  Raises LawBroken: names the step or point and how the world differs."""


@dataclass(frozen=True)
class Proof:
    """How much was tried."""

    failures: int
    crashes: int
    repetitions: int


async def check_three_laws(
    registry: Registry,
    flow: str | Flow,
    input: Mapping[str, object],  # noqa: A002
    worlds: Worlds,
    databases: Path | Databases,
    *,
    operator: Operator | None = None,
    every: int = 1,
) -> Proof:
    """Fail, crash and repeat anywhere.  `operator` decides for steps that a crash left in doubt.

    Raises:
        LawBroken: names the law, the step or point, and how the world differs.
    """
    trials = Trials(registry, flow, input, worlds, databases, operator, every=every)
    return Proof(await fail_anywhere(trials), await crash_anywhere(trials), await repeat_anywhere(trials))


async def check_one_way(
    registry: Registry,
    flow: str | Flow,
    input: Mapping[str, object],  # noqa: A002
    worlds: Worlds,
    databases: Path | Databases,
    *,
    every: int = 1,
) -> Proof:
    """The laws for flows that remove, which have no way back: asked again, they come to their end.

    Whichever step fails, the same flow started again ends as if nothing had failed; crashes and repetitions
    change nothing either.

    Raises:
        LawBroken: names the law, the step or point, and how the world differs.
    """
    trials = Trials(registry, flow, input, worlds, databases, every=every)
    return Proof(
        await ask_again_anywhere(trials), await _crash_forward(trials), await _repeat_forward(trials)
    )


async def fail_anywhere(trials: Trials) -> int:
    """Whichever step fails, before or after its effect, the world is as before the run.

    A failure that a fan-out forgives leaves no more behind if it came after the effect than before it.  A
    flow that keeps what it did, or asks an operator, goes on when tried again as if nothing had failed.
    """
    if trials.on_failure != "undo":
        return await _go_on_anywhere(trials)
    names = await trials.names()
    for name in names:
        before, after = [
            (await trials.outcome(_failed(name, late), failing(name, after_its_effect=late))).end
            for late in (False, True)
        ]
        forgiven = before[0] == RunState.SUCCEEDED
        if not forgiven:
            compare(_failed(name, False), await trials.untouched(), before)
        compare(_failed(name, True), before, after)
    return 2 * len(names)


async def ask_again_anywhere(trials: Trials) -> int:
    """Whichever step fails, the same flow asked for again comes to its end."""
    names = await trials.names()
    wanted = (await trials.usual()).end
    for name, late in itertools.product(names, (False, True)):
        said = f"asked again: {name} had failed {'after' if late else 'before'} its effect"
        compare(said, wanted, await trials.asked_again(said, failing(name, after_its_effect=late)))
    return 2 * len(names)


async def crash_anywhere(trials: Trials) -> int:
    """Whichever commit the process dies at, before or after it, another engine ends the run as without that.

    Through a run that succeeds, and through one whose last step fails.
    """
    backward = await trials.last_step_fails()
    return await _crash_forward(trials) + (await _crash(trials, backward) if backward else 0)


async def crash_in_steps(trials: Trials) -> int:
    """The same, dying within the code of each step and each undo, before or after its effect."""
    forward: tuple[Death, ...] = tuple(trials.in_steps(await trials.names()))
    tried = await _crash_at(trials, untouched, forward)
    backward = await trials.last_step_fails()
    if backward is None:
        return tried
    undone = trials.in_steps(await trials.undone(backward), undoing=True)
    return tried + await _crash_at(trials, backward, tuple(undone))


async def crash_twice(trials: Trials) -> int:
    """Whoever takes a dead engine's runs over may die of it too: at its first commit, and at a later one."""
    tried = 0
    for around in await _both_ways(trials):
        wanted = await trials.usual(around)
        for point in range(0, wanted.points, trials.every):
            for second in {0, point // 2}:
                said = f"crash twice: died at point {point} of {wanted.points}, then at point {second}"
                await _expect(trials, said, wanted.end, around, (point, second))
                tried += 1
    return tried


async def repeat_anywhere(trials: Trials) -> int:
    """Every do and undo of an idempotent step is called twice, and the world is the same."""
    tried = await _repeat_forward(trials)
    backward = await trials.last_step_fails()
    if backward is None:
        return tried
    said = "repeat anywhere: every undo was called twice"
    wanted = await trials.usual(backward)
    compare(said, wanted.end, (await trials.outcome(said, repeating(backward))).end)
    return tried + 1


async def fail_while_undoing(trials: Trials) -> int:
    """An undo that fails is tried again; one that goes on failing is tried again by an operator."""
    backward = await trials.last_step_fails()
    if backward is None:
        return 0
    wanted, names = await trials.untouched(), await trials.undone(backward)
    for name, late, often in itertools.product(names, (False, True), (1, UNDO_TRIES)):
        said = f"fail while undoing: the undo of {name} failed {'after' if late else 'before'} its effect"
        around = both(backward, failing(name, after_its_effect=late, times=often, undo=True))
        ended = await trials.outcome(f"{said}, {often} times", around, operator=lambda _step: "retry")
        compare(f"{said}, {often} times", wanted, ended.end)
    return 4 * len(names)


async def cancel_anywhere(trials: Trials) -> int:
    """Cancelled at any commit, the run is undone as a whole, or was complete already."""

    async def cancel(engine: FlowEngine, run: RunId) -> None:
        await engine.cancel(run)

    complete = await trials.usual()
    cancelled = RunState.CANCELLED.value, (await trials.untouched())[1]
    tried = 0
    for point in range(0, complete.points, trials.every):
        said = f"cancel anywhere: cancelled at point {point} of {complete.points}"
        ended = await trials.outcome(said, meddler=cancel, meddle_at=point)
        if ended.end != complete.end:
            compare(said, cancelled, ended.end)
        tried += 1
    return tried


async def pause_anywhere(trials: Trials) -> int:
    """Paused at any commit and resumed later, the run ends as if it had not been."""

    async def pause(engine: FlowEngine, run: RunId) -> None:
        await engine.pause(run, by="trial")
        await asyncio.sleep(PAUSE)
        await engine.resume(run, by="trial")

    tried = 0
    for around in await _both_ways(trials):
        wanted = await trials.usual(around)
        for point in range(0, wanted.points, trials.every):
            said = f"pause anywhere: paused at point {point} of {wanted.points}"
            ended = await trials.outcome(said, around, meddler=pause, meddle_at=point)
            compare(said, wanted.end, ended.end)
            tried += 1
    return tried


async def disturb_deliveries(trials: Trials) -> int:
    """Calls and answers come twice, late, in another order or not at all; also with a crash."""
    tried = 0
    for around in await _both_ways(trials):
        wanted = await trials.usual(around)
        for seed in range(DISTURBANCES):
            crashes = () if seed % 2 else (seed,)
            said = f"disturb deliveries: with seed {seed} and deaths at {crashes}"
            ended = await trials.outcome(said, around, dispatch=Deliveries(seed), crashes=crashes)
            _agree(trials, said, wanted.end, ended.end, await trials.untouched())
            tried += 1
    return tried


THREE: Mapping[str, Law] = {
    "fail anywhere": fail_anywhere,
    "crash anywhere": crash_anywhere,
    "repeat anywhere": repeat_anywhere,
}
ALL: Mapping[str, Law] = {
    **THREE,
    "crash in steps": crash_in_steps,
    "crash twice": crash_twice,
    "fail while undoing": fail_while_undoing,
    "cancel anywhere": cancel_anywhere,
    "pause anywhere": pause_anywhere,
    "disturb deliveries": disturb_deliveries,
}


async def _both_ways(trials: Trials) -> list[Around]:
    backward = await trials.last_step_fails()
    return [untouched] if backward is None else [untouched, backward]


async def _crash_forward(trials: Trials) -> int:
    return await _crash(trials, untouched)


async def _crash(trials: Trials, around: Around) -> int:
    wanted = await trials.usual(around)
    points = range(0, wanted.points, trials.every)
    for point in points:
        said = f"crash anywhere: died at point {point} of {wanted.points}"
        await _expect(trials, said, wanted.end, around, (point,))
    return len(points)


async def _crash_at(trials: Trials, around: Around, places: tuple[Death, ...]) -> int:
    wanted = await trials.usual(around)
    for place in places:
        await _expect(trials, f"crash in steps: died {place}", wanted.end, around, (place,))
    return len(places)


async def _expect(trials: Trials, said: str, wanted: End, around: Around, crashes: tuple[Death, ...]) -> None:
    """An operator who is asked may have had everything undone instead."""
    end = (await trials.outcome(said, around, crashes=crashes)).end
    _agree(trials, said, wanted, end, await trials.untouched())


def _agree(trials: Trials, said: str, wanted: End, end: End, untouched: End) -> None:
    if trials.operator is None or end != untouched:
        compare(said, wanted, end)


async def _go_on_anywhere(trials: Trials) -> int:
    names = await trials.names()
    wanted = await trials.usual()
    for name, late in itertools.product(names, (False, True)):
        failure = Failing(name, after_its_effect=late)

        def again(_step: object, failure: Failing = failure) -> Choice:
            failure.heal()
            return "retry"

        ended = await trials.outcome(_failed(name, late), failure, operator=again, retries=failure.heal)
        compare(f"{_failed(name, late)} and was tried again", wanted.end, ended.end)
    return 2 * len(names)


async def _repeat_forward(trials: Trials) -> int:
    wanted = (await trials.usual()).end
    said = "repeat anywhere: every do was called twice"
    compare(said, wanted, (await trials.outcome(said, repeating())).end)
    return 1


def _failed(name: str, late: bool) -> str:
    return f"fail anywhere: {name} failed {'after' if late else 'before'} its effect"

"""The proof kit: fail anywhere, crash anywhere, repeat anywhere, and the world must look as promised.

For the tests of whoever writes flows:

    await check_three_laws(registry, "replica.create", {"replica": "web-0"}, worlds, tmp_path)

`worlds()` opens a fresh world for each trial.  The laws:

1. *Fail anywhere.*  Whichever step fails, before or after its effect, the world is as before the run.
2. *Crash anywhere.*  Whichever commit the process dies at, before or after it, another engine on the same
   database ends the run, and the world is as without the crash; also while a failed run is being undone.
3. *Repeat anywhere.*  Every do and undo of an idempotent step is called twice, and the world is the same.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from skep.flow.definition.catalogue import Code
from skep.flow.definition.plan import Flow, Plan
from skep.flow.definition.registry import Bound, Registry
from skep.flow.engine import FlowEngine
from skep.flow.execution.operator import Choice
from skep.flow.runs import RunRecord, RunState, StepRecord, StepState
from skep.flow.steps import Context, RunId, Step
from skep.flow.storage.database import Database

Proceed = Callable[[], Awaitable[Any]]
Around = Callable[[Code, Context[Any], Proceed], Awaitable[Any]]
"""What is done in place of a step's code: `proceed()` calls it."""


class World(Protocol):
    """What a flow acts on."""

    async def attach(self, database: Database) -> None:
        """Called each time a database is opened, also after a crash: make the tables that steps write to."""

    def environment(self, route: str) -> object:
        """As `FlowEngine` asks for it."""

    async def snapshot(self) -> object:
        """The state of the world: equal snapshots are equal worlds.  Without times, attempts and the like."""


class LawBroken(AssertionError):
    """The flow does not keep one of the three laws."""


class Injected(Exception):
    """The failure that a trial puts into a step."""


class CrashingDatabase(Database):
    """A database that dies at a chosen point: 2n before its n-th commit, 2n + 1 right after it (n from 0).

    From then on nothing is committed and nobody is answered; `crashed` is set.
    """

    crash_at: int | None = None
    points: int = 0
    """How many points have been passed."""

    def arm(self, point: int | None) -> asyncio.Event:
        """Die at the point, counted from now; None: never."""
        self.crash_at, self.points, self.crashed = point, 0, asyncio.Event()
        return self.crashed

    async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
        await self._pass()
        await commit()
        await self._pass()

    async def _pass(self) -> None:
        point, self.points = self.points, self.points + 1
        if point == self.crash_at:
            self.crashed.set()
            await asyncio.Event().wait()


class InjectingRegistry(Registry):
    """The flows and steps of a registry, with something done around each call of a step or an undo."""

    def __init__(self, base: Registry, around: Around) -> None:
        super().__init__()
        self.__dict__.update(base.__dict__)
        self._around = around

    def bind(self, plan: Plan) -> Bound:
        bound = super().bind(plan)
        return replace(bound, codes=tuple(map(self._wrapped, bound.codes)))

    def _wrapped(self, code: Code) -> Code:
        around, step = self._around, code.step

        async def do(cx: Context[Any], /, **arguments: Any) -> Any:
            return await around(code, cx, lambda: step.do(cx, **arguments))

        wrapped: Step[Any, Any, Any] = Step(
            do, kind=step.kind, name=step.name, retry=step.retry, timeout=step.timeout
        )
        undo = step.undo_do
        if undo is not None:

            async def undo_do(cx: Context[Any], /, **arguments: Any) -> Any:
                return await around(code, cx, lambda: undo(cx, **arguments))

            wrapped.undo_do = undo_do
        return replace(code, step=wrapped)


async def untouched(_code: Code, _cx: Context[Any], proceed: Proceed) -> Any:
    return await proceed()


def failing(step: str, *, after_its_effect: bool) -> Around:
    """The step of that name fails, whenever it is tried."""

    async def around(_code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        if cx.step != step or cx.undoing:
            return await proceed()
        if after_its_effect:
            await proceed()
        raise Injected(f"injected into {step}")

    return around


def repeating(around: Around = untouched) -> Around:
    """Every do and undo of an idempotent step is called twice; the other kinds are never repeated."""

    async def twice(code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        async def both() -> Any:
            await proceed()
            return await proceed()

        return await around(code, cx, both if code.kind == "idempotent" else proceed)

    return twice


@dataclass
class Trial:
    """One run of a flow in one world, through any number of crashes.

    `crashes`: for each life of the process the point at which it dies; the last one lives on.
    """

    registry: Registry
    flow: str | Flow
    input: Mapping[str, object]
    world: World
    file: Path
    around: Around = untouched
    crashes: tuple[int, ...] = ()
    operator: Callable[[StepRecord], Choice] | None = None
    timeout: float = 60.0
    key: str = "trial"
    """Of the run: another one in the same world and file needs another key."""
    points: int = field(default=0, init=False)
    """How many points the last life passed: those where a crash can be tried."""
    crashed: int = field(default=0, init=False)
    _id: RunId | None = field(default=None, init=False)

    async def run(self) -> RunRecord:
        """Answers the run once it has ended."""
        lives: Iterator[int | None] = itertools.chain(self.crashes, itertools.repeat(None))
        async with asyncio.timeout(self.timeout):
            for point in lives:
                record = await self._live(point)
                if record is not None:
                    return record
        raise AssertionError("unreachable")

    async def _live(self, point: int | None) -> RunRecord | None:
        """One life of the process; None if it died."""
        database = await CrashingDatabase.open(f"sqlite+aiosqlite:///{self.file}", durable=False)
        engine = FlowEngine(
            database,
            InjectingRegistry(self.registry, self.around),
            self.world.environment,
            retry_delay=lambda _tries: 0.0,
            grace=0.0,
        )
        try:
            await self._prepare(database)
            died = asyncio.create_task(database.arm(point).wait())
            lived = asyncio.create_task(self._carry_out(engine))
            await asyncio.wait({died, lived}, return_when=asyncio.FIRST_COMPLETED)
            record = await lived if lived.done() else None
            self.crashed += record is None
            await _end(died, lived)
            self.points = database.points
            return record
        finally:
            await engine.abandon()
            await database.abandon()

    async def _prepare(self, database: Database) -> None:
        await FlowEngine.create_tables_in(database)
        await self.world.attach(database)

    async def _carry_out(self, engine: FlowEngine) -> RunRecord:
        await engine.__aenter__()
        # The key makes the start repeatable: a caller who was not answered asks again.
        self._id = await engine.start(self.flow, self.input, key=self.key)
        while True:
            record = await self._ended_or_stuck(engine, self._id)
            if record.state is not RunState.NEEDS_OPERATOR:
                return record
            await self._decide(engine, record)

    async def _ended_or_stuck(self, engine: FlowEngine, run: RunId) -> RunRecord:
        async for event in engine.follow(run):
            record = await engine.get(run) if event.kind == "run-needs-operator" else None
            if record is not None and record.state is RunState.NEEDS_OPERATOR:
                return record
        return await engine.get(run)

    async def _decide(self, engine: FlowEngine, record: RunRecord) -> None:
        stuck = [step for step in await engine.steps(record.id) if step.state is StepState.NEEDS_OPERATOR]
        if self.operator is None or not stuck:
            waiting = "; ".join(f"{step.name}: {step.message}" for step in stuck)
            raise LawBroken(f"the run needs an operator: {waiting or record.error}")
        for step in stuck:
            await engine.resolve(record.id, step.name, self.operator(step), by="trial")


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


Worlds = Callable[[], AbstractAsyncContextManager[World]]
Operator = Callable[[StepRecord], Choice]
End = tuple[str, object]
"""The state of the run that has ended, and of the world."""


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
    directory: Path,
    *,
    operator: Operator | None = None,
    every: int = 1,
) -> Proof:
    """Try the flow against the three laws; each trial has a world and a database file of its own.

    `operator` decides for at-most-once steps that a crash left in doubt.  `every`: try each n-th crash point
    only, for flows whose steps are slow.

    Raises:
        LawBroken: names the law, the step or point, and how the world differs.
    """
    bench = _Bench(registry, flow, input, worlds, directory, operator)
    return Proof(
        failures=await bench.fail_anywhere(),
        crashes=await bench.crash_anywhere(every),
        repetitions=await bench.repeat_anywhere(),
    )


async def check_one_way(
    registry: Registry,
    flow: str | Flow,
    input: Mapping[str, object],  # noqa: A002
    worlds: Worlds,
    directory: Path,
    *,
    every: int = 1,
) -> Proof:
    """The laws for flows that remove, which have no way back: asked again, they come to their end.

    Whichever step fails, the same flow started again ends as if nothing had failed; crashes and repetitions
    change nothing either.

    Raises:
        LawBroken: names the law, the step or point, and how the world differs.
    """
    bench = _Bench(registry, flow, input, worlds, directory, None)
    return Proof(
        failures=await bench.ask_again_anywhere(),
        crashes=await bench.crash_anywhere(every, forward_only=True),
        repetitions=await bench.repeat_forward(),
    )


@dataclass
class _Bench:
    registry: Registry
    flow: str | Flow
    input: Mapping[str, object]
    worlds: Worlds
    directory: Path
    operator: Operator | None
    _files: Iterator[int] = field(default_factory=itertools.count)
    _fresh: End | None = None

    async def fail_anywhere(self) -> int:
        names = self._step_names()
        for name, after in itertools.product(names, (False, True)):
            said = f"fail anywhere: {name} failed {'after' if after else 'before'} its effect"
            await self._expect_untouched(said, failing(name, after_its_effect=after))
        return 2 * len(names)

    async def ask_again_anywhere(self) -> int:
        names = self._step_names()
        wanted, _ = await self._outcome("without a failure", untouched)
        for name, after in itertools.product(names, (False, True)):
            said = f"asked again: {name} had failed {'after' if after else 'before'} its effect"
            async with self.worlds() as world:
                file = self._file()
                for key, around in (("fails", failing(name, after_its_effect=after)), ("again", untouched)):
                    record = await Trial(
                        self.registry, self.flow, self.input, world, file, around, key=key
                    ).run()
                _compare(said, wanted, (record.state.value, await _look(world, file)))
        return 2 * len(names)

    async def crash_anywhere(self, every: int, *, forward_only: bool = False) -> int:
        """Through a run that succeeds, and through one whose last step fails."""
        tried = 0
        allowed = [await self._untouched()] if self.operator else []
        for around in (untouched, *([] if forward_only else self._last_step_fails())):
            wanted, points = await self._outcome("without a crash", around)
            for point in range(0, points, every):
                said = f"crash anywhere: died at point {point} of {points}"
                end, _ = await self._outcome(said, around, (point,))
                if end not in allowed:
                    _compare(said, wanted, end)
                tried += 1
        return tried

    async def repeat_forward(self) -> int:
        wanted, _ = await self._outcome("without a repetition", untouched)
        end, _ = await self._outcome("repeat anywhere", repeating())
        _compare("repeat anywhere: every do was called twice", wanted, end)
        return 1

    async def repeat_anywhere(self) -> int:
        await self.repeat_forward()
        for around in self._last_step_fails():
            await self._expect_untouched("repeat anywhere: every undo was called twice", repeating(around))
        return 2

    def _last_step_fails(self) -> list[Around]:
        names = self._step_names()
        return [failing(names[-1], after_its_effect=True)] if names else []

    def _step_names(self) -> list[str]:
        flow = self.registry.flow(self.flow) if isinstance(self.flow, str) else self.flow
        return [step.name for step in flow.plan.steps]

    async def _expect_untouched(self, said: str, around: Around) -> None:
        end, _ = await self._outcome(said, around)
        _compare(said, await self._untouched(), end)

    async def _untouched(self) -> End:
        """The end of a run that failed as it should: the world is as a fresh one."""
        if self._fresh is None:
            async with self.worlds() as fresh:
                self._fresh = RunState.FAILED.value, await _look(fresh, self._file())
        return self._fresh

    async def _outcome(self, said: str, around: Around, crashes: tuple[int, ...] = ()) -> tuple[End, int]:
        """The end of a run in a fresh world, and how many points it passed."""
        async with self.worlds() as world:
            file = self._file()
            trial = Trial(self.registry, self.flow, self.input, world, file, around, crashes, self.operator)
            try:
                record = await trial.run()
            except LawBroken as error:
                raise LawBroken(f"{said}: {error}") from error
            return (record.state.value, await _look(world, file)), trial.points

    def _file(self) -> Path:
        return self.directory / f"trial-{next(self._files)}.db"


async def _look(world: World, file: Path) -> object:
    """The state of the world, with a database that is open."""
    database = await Database.open(f"sqlite+aiosqlite:///{file}", durable=False)
    try:
        await world.attach(database)
        return await world.snapshot()
    finally:
        await database.close()


def _compare(said: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise LawBroken(f"{said}: the run should end as\n  {wanted!r}\nbut ends as\n  {found!r}")

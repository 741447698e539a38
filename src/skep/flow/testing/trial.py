"""One run of a flow in one world, through any number of crashes."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skep.flow.definition.catalogue import Code
from skep.flow.definition.plan import Flow
from skep.flow.definition.registry import Registry
from skep.flow.engine import FlowEngine
from skep.flow.errors import WrongState
from skep.flow.execution.caller import Dispatch, at_once
from skep.flow.execution.operator import Choice
from skep.flow.runs import RunRecord, RunState, StepRecord, StepState, StepWait
from skep.flow.steps import Context, RunId
from skep.flow.testing.crashing import CrashingDatabase
from skep.flow.testing.injection import Around, InjectingRegistry, Proceed, both, untouched
from skep.flow.testing.virtual_time import wall_clock
from skep.flow.testing.worlds import World

Operator = Callable[[StepRecord], Choice]
Answers = Callable[[StepWait], object]
"""What a step that waits is told: whether it is approved, or the value of its signal; see its `reasons`."""
Meddler = Callable[[FlowEngine, RunId], Awaitable[None]]
"""Somebody who does something to a run that is under way, as pausing it."""
_ATTENTION = frozenset({"run-needs-operator", "in-doubt", "undo-failed", "failed"})


class LawBroken(AssertionError):
    """The flow does not keep one of the laws."""


@dataclass(frozen=True)
class InStep:
    """A place to die: in the code of a step or its undo, before or after its effect."""

    step: str
    after_its_effect: bool = False
    undoing: bool = False

    def __str__(self) -> str:
        code = f"the undo of {self.step}" if self.undoing else self.step
        return f"{'after' if self.after_its_effect else 'before'} the effect of {code}"


Death = int | InStep
"""Where a life of the process ends: at a point (see `CrashingDatabase`), or in a step."""


@dataclass
class Trial:
    """One run of a flow in one world, through any number of crashes.

    `where`: an SQLite file, or the URL of a database.  `crashes`: for each life of the process where it dies;
    the last one lives on.  `operator` decides for steps that need one.
    """

    registry: Registry
    flow: str | Flow
    input: Mapping[str, object]
    world: World
    where: Path | str
    around: Around = untouched
    crashes: tuple[Death, ...] = ()
    operator: Operator | None = None
    answers: Answers | None = None
    """Without it everything is approved, and a step that waits for a signal waits for ever."""
    dispatch: Dispatch = at_once
    retries: Callable[[], None] | None = None
    """Called when the run has failed; then it is retried, once."""
    timeout: float = 60.0
    key: str = "trial"
    """Of the run: another one in the same world and database needs another key."""
    prepared: bool = False
    """The database has the engine's tables already."""
    meddler: Meddler | None = None
    meddle_at: int = 0
    """The point at which the meddler acts."""
    points: int = field(default=0, init=False)
    """How many points the last life passed: those where a crash can be tried."""
    crashed: int = field(default=0, init=False)
    _id: RunId | None = field(default=None, init=False)
    _trusted: bool = field(default=False, init=False)
    _meddling: list[asyncio.Task[None]] = field(default_factory=list, init=False)

    async def run(self) -> RunRecord:
        """Answers the run once it has ended."""
        lives: Iterator[Death | None] = itertools.chain(self.crashes, itertools.repeat(None))
        async with asyncio.timeout(self.timeout):
            for death in lives:
                record = await self._live(death)
                if record is not None:
                    return record
        raise AssertionError("unreachable")

    @property
    def url(self) -> str:
        return self.where if isinstance(self.where, str) else f"sqlite+aiosqlite:///{self.where}"

    async def _live(self, death: Death | None) -> RunRecord | None:
        """One life of the process; None if it died."""
        database = await CrashingDatabase.open(self.url, durable=False)
        engine = self._engine(database, death)
        self._trusted = False
        try:
            await self._prepare(database)
            died = asyncio.create_task(database.arm(death if isinstance(death, int) else None).wait())
            database.at_point = lambda point: self._meddle(engine, point)
            lived = asyncio.create_task(self._carry_out(engine))
            await asyncio.wait({died, lived}, return_when=asyncio.FIRST_COMPLETED)
            record = await lived if lived.done() else None
            self.crashed += record is None
            await _end(died, lived, *self._meddling)
            self._meddling.clear()
            self.points = database.points
            return record
        finally:
            await engine.abandon()
            await database.abandon()

    def _engine(self, database: CrashingDatabase, death: Death | None) -> FlowEngine:
        around = both(_dying(database, death), self.around) if isinstance(death, InStep) else self.around
        return FlowEngine(
            database,
            InjectingRegistry(self.registry, around),
            self.world.environment,
            retry_delay=lambda _tries: 0.0,
            clock=wall_clock(),
            create_tables=False,
            dispatch=self.dispatch,
            grace=0.0,
        )

    async def _prepare(self, database: CrashingDatabase) -> None:
        if not self.prepared:
            await FlowEngine.create_tables_in(database)
            self.prepared = True
        await self.world.attach(database)

    async def _carry_out(self, engine: FlowEngine) -> RunRecord:
        await engine.__aenter__()
        # The key makes the start repeatable: a caller who was not answered asks again.
        self._id = run = await engine.start(self.flow, self.input, key=self.key)
        if self.crashed and (await engine.get(run)).state is RunState.PAUSED:
            await engine.resume(run, by="trial")  # whoever paused it died with the process
        await self._attend(engine, run)
        record = await engine.get(run)
        if record.state is RunState.FAILED and self.retries is not None:
            self.retries()
            self.retries = None
            await engine.retry(run, by="trial")
            await self._attend(engine, run)
        return await engine.get(run)

    async def _attend(self, engine: FlowEngine, run: RunId) -> None:
        """To whatever the run wants until it has ended."""
        async for event in engine.follow(run):
            if event.kind in _ATTENTION:
                await self._decide(engine, run)
            elif event.kind == "waiting":
                await self._answer(engine, run)

    async def _decide(self, engine: FlowEngine, run: RunId) -> None:
        """As an operator who is told of a run that needs one."""
        record = await engine.get(run)
        if record.state is not RunState.NEEDS_OPERATOR:
            return
        stuck = [step for step in await engine.steps(run) if step.state is StepState.NEEDS_OPERATOR]
        if not stuck and self.crashed and not self._trusted:
            self._trusted = True  # the run is suspected to have killed its workers; it was the trial
            await engine.resolve(run, "", "retry", by="trial")
            return
        if self.operator is None or not stuck:
            waiting = "; ".join(f"{step.name}: {step.message}" for step in stuck)
            raise LawBroken(f"the run needs an operator: {waiting or record.error}")
        for step in stuck:
            await engine.resolve(run, step.name, self.operator(step), by="trial")

    async def _answer(self, engine: FlowEngine, run: RunId) -> None:
        """As whoever is asked would; everything is said twice, for messages may come twice."""
        for wait, _ in itertools.product(await engine.why(run), range(2)):
            for reason in wait.reasons:
                with suppress(WrongState):  # it waits no more
                    if reason.kind == "approval":
                        approved = True if self.answers is None else bool(self.answers(wait))
                        await engine.approve(run, wait.step, approved, by="trial")
                    elif reason.kind == "signal" and self.answers is not None:
                        value = self.answers(wait)
                        await engine.signal(run, reason.subject, value, key=f"trial/{wait.step}", by="trial")

    def _meddle(self, engine: FlowEngine, point: int) -> None:
        if self.meddler is None or point != self.meddle_at or self._id is None:
            return

        async def meddle(meddler: Meddler, run: RunId) -> None:
            with suppress(WrongState):  # it has ended
                await meddler(engine, run)

        self._meddling.append(asyncio.create_task(meddle(self.meddler, self._id)))


def _dying(database: CrashingDatabase, death: InStep) -> Around:
    async def around(_code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        if (cx.step, cx.undoing) != (death.step, death.undoing):
            return await proceed()
        if death.after_its_effect:
            await proceed()
        database.die()
        return await asyncio.Event().wait()

    return around


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Interrupt them.  Raises what one of them has failed with."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

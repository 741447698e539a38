"""Many trials of one flow, each in a fresh world with a fresh database, and what their ends must be."""

import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from skep.flow.definition.plan import Flow, OnFailure
from skep.flow.definition.registry import Registry
from skep.flow.engine import FlowEngine
from skep.flow.execution.caller import Dispatch, at_once
from skep.flow.runs import RunState
from skep.flow.storage.database import Database
from skep.flow.testing.injection import Around, Watching, failing, untouched
from skep.flow.testing.trial import Answers, Death, InStep, LawBroken, Meddler, Operator, Trial
from skep.flow.testing.worlds import Worlds, look

End = tuple[str, object]
"""The state of the run that has ended, and of the world."""
Databases = Callable[[], AbstractAsyncContextManager[str]]
"""Opens an empty database of one's own (answers its URL), and clears it away."""


@dataclass(frozen=True)
class Ended:
    """How a trial ended, how many crash points its last life passed, and why the run failed if it did."""

    end: End
    points: int
    error: str = ""


@dataclass
class Trials:
    """`databases`: a folder for SQLite files, or where to get databases from.

    `every`: try each n-th point only, for flows whose steps are slow.  `timeout`: seconds for each trial.
    """

    registry: Registry
    flow: str | Flow
    input: Mapping[str, object]
    worlds: Worlds
    databases: Path | Databases
    operator: Operator | None = None
    answers: Answers | None = None
    every: int = 1
    timeout: float = 60.0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _fresh: End | None = None
    _names: tuple[str, ...] | None = None
    _last: Around | None = None
    _usual: dict[Around, Ended] = field(default_factory=dict)
    _template: Path | None = None

    # what is there to be tried

    @property
    def on_failure(self) -> OnFailure:
        """What a run does when a step has failed."""
        flow = self.registry.flow(self.flow) if isinstance(self.flow, str) else self.flow
        return flow.plan.on_failure

    async def names(self) -> tuple[str, ...]:
        """The steps whose code is called in a run that succeeds, in order; also those of fan-outs."""
        if self._names is None:
            watching = Watching()
            ended = self._usual[untouched] = await self.outcome("without a failure", watching)
            if ended.end[0] != RunState.SUCCEEDED:
                raise LawBroken(
                    f"the run should succeed if nothing fails, but it is {ended.end[0]}: {ended.error}"
                )
            self._names = tuple(watching.done)
        return self._names

    async def undone(self, around: Around) -> tuple[str, ...]:
        """The steps whose undo is called in such a run."""
        watching = Watching(around)
        await self.outcome("while it is undone", watching)
        return tuple(watching.undone)

    async def last_step_fails(self) -> Around | None:
        """A run that has done as much as possible before it fails; None if no step makes it fail."""
        if self._last is None and self.on_failure != "ask":
            for name in reversed(await self.names()):
                around = failing(name, after_its_effect=True)
                ended = await self.outcome(f"{name} failed after its effect", around)
                if ended.end[0] == RunState.FAILED:
                    self._last, self._usual[around] = around, ended
                    break
        return self._last

    # trials

    async def usual(self, around: Around = untouched) -> Ended:
        """How such a run ends if nothing else happens to it: always alike, so it is tried once."""
        if around not in self._usual:
            self._usual[around] = await self.outcome("with nothing else", around)
        return self._usual[around]

    async def outcome(
        self,
        said: str,
        around: Around = untouched,
        *,
        crashes: tuple[Death, ...] = (),
        meddler: Meddler | None = None,
        meddle_at: int = 0,
        operator: Operator | None = None,
        dispatch: Dispatch = at_once,
        retries: Callable[[], None] | None = None,
    ) -> Ended:
        """One trial in a fresh world."""
        async with self.worlds() as world, self.place() as place:
            trial = Trial(
                self.registry,
                self.flow,
                self.input,
                world,
                place,
                around,
                crashes,
                operator or self.operator,
                self.answers,
                dispatch,
                retries,
                self.timeout,
                prepared=isinstance(self.databases, Path),
                meddler=meddler,
                meddle_at=meddle_at,
            )
            try:
                record = await trial.run()
            except LawBroken as error:
                raise LawBroken(f"{said}: {error}") from error
            except TimeoutError as error:
                raise LawBroken(f"{said}: the run does not come to its end") from error
            return Ended((record.state.value, await look(world, trial.url)), trial.points, record.error)

    async def asked_again(self, said: str, around: Around) -> End:
        """The run goes as it goes; then the same flow is started again in the same world."""
        async with self.worlds() as world, self.place() as place:
            for key, each in (("fails", around), ("again", untouched)):
                trial = Trial(
                    self.registry,
                    self.flow,
                    self.input,
                    world,
                    place,
                    each,
                    operator=self.operator,
                    answers=self.answers,
                    timeout=self.timeout,
                    key=key,
                    prepared=isinstance(self.databases, Path),
                )
                try:
                    record = await trial.run()
                except LawBroken as error:
                    raise LawBroken(f"{said}: {error}") from error
            return record.state.value, await look(world, trial.url)

    async def untouched(self) -> End:
        """The end of a run that failed as it should: the world is as a fresh one."""
        if self._fresh is None:
            async with self.worlds() as fresh, self.place() as place:
                url = place if isinstance(place, str) else f"sqlite+aiosqlite:///{place}"
                self._fresh = RunState.FAILED.value, await look(fresh, url)
        return self._fresh

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Path | str]:
        """Of the next trial's database."""
        if not isinstance(self.databases, Path):
            async with self.databases() as url:
                yield url
            return
        if self._template is None:
            self._template = await _template(self.databases / "template.db")
        place = self.databases / f"trial-{next(self._numbers)}.db"
        shutil.copyfile(self._template, place)
        yield place

    def in_steps(self, names: tuple[str, ...], *, undoing: bool = False) -> list[InStep]:
        """Every place to die in the code of these steps."""
        return [InStep(name, after, undoing) for name in names for after in (False, True)]


async def _template(file: Path) -> Path:
    """An SQLite database with the engine's tables, to be copied: making them takes as long as a trial."""
    database = await Database.open(f"sqlite+aiosqlite:///{file}", durable=False)
    await FlowEngine.create_tables_in(database)
    await database.close()
    return file


def compare(said: str, wanted: object, found: object) -> None:
    """Raises LawBroken if they differ."""
    if wanted != found:
        raise LawBroken(f"{said}: the run should end as\n  {wanted!r}\nbut ends as\n  {found!r}")

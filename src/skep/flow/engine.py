"""The durable flow engine: starts runs, shows them, and takes them up again after a crash."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.admission.locks import Locks
from skep.flow.definition.plan import Flow
from skep.flow.definition.registry import Registry
from skep.flow.errors import UnknownFlow, UnknownRun, WrongState
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.caller import Caller
from skep.flow.execution.execution import Execution
from skep.flow.execution.loading import Loader, RunIds, check_input, locks_of
from skep.flow.execution.operator import Choice, resolve
from skep.flow.execution.worker import Worker
from skep.flow.runs import RunEvent, RunRecord, RunRow, RunState, StepRecord
from skep.flow.steps import RunId
from skep.flow.storage import records, tables
from skep.flow.storage.database import Database
from skep.flow.storage.journal import Journal

log = structlog.get_logger(__name__)

T = TypeVar("T")
PATIENCE = 5.0
"""Seconds that a cancelled step has to end when the engine is closed."""

Transaction = Callable[[AsyncConnection], Awaitable[None]]


GATHERING = 0.02
"""Seconds a follower lets news gather: a busy run has hundreds of events a second, each look is a query."""


def full_jitter(tries: int) -> float:
    """Seconds to wait after so many tries: anything up to 0.2 s doubled each time, 30 s at most.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0.0, min(30.0, 0.2 * 2.0 ** min(tries, 20)))  # noqa: S311


class FlowEngine:
    """Runs flows durably.  Open it with `async with`; one engine per database for now.

    `environments(route)` answers what steps find in `cx.env`; `route` is the value of their `on:`, or "".
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        environments: Callable[[str], object],
        *,
        concurrency: int = 64,
        clock: Callable[[], float] = time.time,
        retry_delay: Callable[[int], float] = full_jitter,
        new_id: Callable[[], str] | None = None,
        create_tables: bool = True,
        grace: float = 5.0,
    ) -> None:
        self.registry = registry
        self._database = database
        self._create_tables = create_tables
        self._grace = grace
        self._clock = clock
        self._new_id = new_id or RunIds()
        self._loader = Loader(registry)
        self._locks = Locks()
        self._journal = Journal(database)
        self._runs: dict[RunId, ActiveRun] = {}
        self._stored: set[str] = set()
        self._callbacks: list[Callable[[RunRecord], None]] = []
        self._telling: set[asyncio.Task[None]] = set()
        self._worker = Worker(
            self._journal,
            Caller(database, self._journal, environments, clock),
            concurrency=concurrency,
            clock=clock,
            retry_delay=retry_delay,
            ended=self._ended,
        )

    async def __aenter__(self) -> Self:
        if self._create_tables:
            await self.create_tables_in(self._database)
        async with self._database.read() as connection:
            stored = await records.unfinished(connection)
        for item in sorted(stored, key=lambda item: item.row.state is RunState.PENDING):
            item.row.epoch += 1
            self._adopt(self._loader.load(item))
        await self._journal.flushed()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start nothing more, give running steps `grace` seconds, interrupt them; runs can be resumed."""
        self._worker.closing = True
        await self._wait_for_steps(self._grace)
        await self._interrupt_steps()
        await self._journal.flushed()
        self._forget()
        if self._telling:
            await asyncio.wait(self._telling)

    async def abandon(self) -> None:
        """Drop everything without recording it, as the death of the process would."""
        self._worker.closing = True
        self._journal.stop()
        await self._interrupt_steps()
        self._forget()

    @staticmethod
    async def create_tables_in(database: Database) -> None:
        """Make the engine's tables if they are absent."""
        await database.write(lambda connection: connection.run_sync(tables.metadata.create_all))

    # runs

    async def start(
        self,
        flow: str | Flow,
        input: Mapping[str, object],  # noqa: A002
        *,
        tenant: str = "",
        title: str = "",
        labels: Mapping[str, str] | None = None,
        key: str | None = None,
        transaction: Transaction | None = None,
    ) -> RunId:
        """Begin a run; return once it is durable.

        The same `key` of the same tenant answers the run it began first.  `transaction` commits together with
        the run's creation (not if the key was known); if it raises, there is no run.

        Raises:
            UnknownFlow: no flow of that name.
            InputError: the input does not fit the flow's types.
        """
        if isinstance(flow, str):
            flow = self._registered(flow)
        bound = self._loader.bind(flow)
        values = check_input(flow.name, flow.types, input)
        row = RunRow(
            id=RunId(self._new_id()),
            flow=flow.name,
            definition=flow.hash,
            title=title or flow.name,
            tenant=tenant,
            labels=dict(labels or {}),
            key=key,
            input=msgspec.json.encode(values),
            locks=locks_of(flow.plan, values),
            total=len(flow.plan.steps),
            created=self._clock(),
        )
        run = ActiveRun(row, bound, Execution(bound.graph, values))
        await self._store_definition(flow)
        return await self._create(run, transaction)

    def parse(self, text: str, file: str = "<generated>") -> Flow:
        """Check a generated document; it may use registered flows as sub-flows.  Raises FlowError."""
        return self.registry.parse(text, file)

    async def wait(self, run: RunId, timeout: float | None = None) -> RunRecord:  # noqa: ASYNC109
        """Return once the run has ended.  Raises UnknownRun, or TimeoutError after so many seconds."""
        active = self._runs.get(run)
        if active is not None:
            async with asyncio.timeout(timeout):
                await active.ended.wait()
        return await self.get(run)

    async def get(self, run: RunId) -> RunRecord:
        async with self._database.read() as connection:
            return _known(await records.run(connection, run), run)

    async def steps(self, run: RunId) -> list[StepRecord]:
        """All steps of the run's flow, also those that wait, in topological order."""
        async with self._database.read() as connection:
            return _known(await records.steps(connection, run), run)

    async def history(self, run: RunId, after: int = 0) -> list[RunEvent]:
        """What has happened since event `after`."""
        async with self._database.read() as connection:
            return await records.history(connection, run, after)

    async def list(
        self,
        *,
        tenant: str | None = None,
        labels: Mapping[str, str] | None = None,
        active: bool | None = None,
        limit: int = 50,
        before: RunId | None = None,
    ) -> list[RunRecord]:
        """Newest first; all of the conditions hold for each.  `before`: the last id of the page before."""
        async with self._database.read() as connection:
            return await records.runs(
                connection, tenant=tenant, labels=labels or {}, active=active, limit=limit, before=before
            )

    async def follow(self, run: RunId, after: int = 0) -> AsyncIterator[RunEvent]:
        """The whole history, then what happens, until the run has ended; none is lost or given twice."""
        await self.get(run)
        news, active = asyncio.Event(), self._runs.get(run)
        if active is not None:
            active.followers.add(news)
        try:
            while True:
                over = active is None or active.ended.is_set()
                news.clear()
                for event in await self.history(run, after):
                    after = event.sequence
                    yield event
                if over:
                    return
                await news.wait()
                await asyncio.sleep(GATHERING)
        finally:
            if active is not None:
                active.followers.discard(news)

    async def cancel(self, run: RunId) -> None:
        """Stop the run and undo what it did; return once that is decided durably.

        Raises:
            UnknownRun, WrongState: it has ended, or cannot be loaded.
        """
        active = await self._active(run)
        if active.bound is None:
            raise WrongState(f"run {run} cannot be loaded: {active.row.error}")
        self._worker.stop(active, RunState.CANCELLED, "cancelled")
        if active.row.state is RunState.PENDING:
            self._locks.release(run)
        self._worker.cancel_tasks(active)
        self._worker.settle(active)
        self._journal.save_run(active.row)
        await self._journal.flushed()

    async def resolve(self, run: RunId, step: str, choice: Choice, by: str = "") -> None:
        """Decide for a run that needs an operator; recorded in its history with who decided.

        `retry` tries what failed again.  `skip` leaves the step as it is and goes on.  `mark-undone`:
        what the step did has been taken back by hand; if the run was going forward, it is now undone.  For a
        run that cannot be loaded `step` is empty: `retry` loads it again, the others end it as failed.

        Raises:
            UnknownRun, WrongState: the step does not wait for an operator, or the choice is impossible.
        """
        active = await self._active(run)
        if active.bound is None:
            await self._resolve_unloadable(active, choice, by)
        else:
            resolve(self._worker, active, step, choice, by)
        await self._journal.flushed()

    def on_end(self, callback: Callable[[RunRecord], None]) -> None:
        """Call it with every run that ends, after its end is durable."""
        self._callbacks.append(callback)

    # creation

    def _registered(self, name: str) -> Flow:
        try:
            return self.registry.flow(name)
        except LookupError as error:
            raise UnknownFlow(str(error)) from error

    async def _store_definition(self, flow: Flow) -> None:
        """Durable before the first run that needs it; the same content is stored once."""
        if flow.hash in self._stored:
            return
        values = (flow.hash, flow.name, flow.content, self._clock())
        await self._database.write(lambda connection: self._journal.write_definition(connection, values))
        self._stored.add(flow.hash)

    async def _create(self, run: ActiveRun, transaction: Transaction | None) -> RunId:
        """The run is taken up as soon as it is durable, also if the caller has gone by then."""
        if run.row.key is None and transaction is None:
            self._journal.create_run(run.row)
            self._journal.afterwards(partial(self._adopt, run))
            await self._journal.flushed()
            return run.id

        async def change(connection: AsyncConnection) -> RunId:
            known = run.row.key and await records.by_key(connection, run.row.tenant, run.row.key)
            if known:
                return known
            await self._journal.write_run(connection, run.row)
            if transaction is not None:
                await transaction(connection)
            return run.id

        def adopt(done: asyncio.Future[RunId]) -> None:
            if not done.cancelled() and done.exception() is None and done.result() == run.id:
                self._adopt(run)

        future = self._database.submit(change)
        future.add_done_callback(adopt)
        try:
            return await asyncio.shield(future)
        except IntegrityError:
            async with self._database.read() as connection:
                known = run.row.key and await records.by_key(connection, run.row.tenant, run.row.key)
            if not known:
                raise
            return known

    def _adopt(self, run: ActiveRun) -> None:
        """Take the run up: it waits for its locks, or says what it needs."""
        self._runs[run.id] = run
        if run.sequence == 0:
            self._worker.event(run, "run-created")
        if run.bound is None:
            self._worker.event(run, "run-needs-operator", message=run.row.error)
            self._journal.save_run(run.row)
        self._locks.request(run.id, [claim.key for claim in run.row.locks], partial(self._granted, run))

    def _granted(self, run: ActiveRun) -> None:
        if run.bound is not None and not self._worker.closing:
            self._worker.begin(run)

    # the end

    def _ended(self, run: ActiveRun) -> None:
        """The end is durable: others may have the locks, and whoever waits is told."""
        self._runs.pop(run.id, None)
        self._locks.release(run.id)
        run.ended.set()
        run.wake()
        if self._callbacks:
            task = asyncio.create_task(self._tell(run.id))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, run: RunId) -> None:
        record = await self.get(run)
        for callback in self._callbacks:
            try:
                callback(record)
            except Exception:
                log.exception("flow.callback_failed", run=run)

    async def _active(self, run: RunId) -> ActiveRun:
        active = self._runs.get(run)
        if active is None:
            raise WrongState(f"run {run} has ended: {(await self.get(run)).state}")
        return active

    async def _resolve_unloadable(self, run: ActiveRun, choice: Choice, by: str) -> None:
        self._worker.event(run, "resolved", message=f"{choice} by {by}" if by else choice)
        if choice != "retry":
            run.row.state, run.row.finished = RunState.FAILED, self._clock()
            self._worker.event(run, "run-failed", message=run.row.error)
            self._journal.save_run(run.row)
            self._journal.afterwards(partial(self._ended, run))
            return
        await self._journal.flushed()
        async with self._database.read() as connection:
            stored = [item for item in await records.unfinished(connection) if item.row.id == run.id]
        loaded = self._loader.load(stored[0])
        loaded.followers, loaded.ended = run.followers, run.ended
        self._runs[run.id] = loaded
        if loaded.bound is not None:
            loaded.row.error = ""
            self._worker.begin(loaded)

    async def _wait_for_steps(self, seconds: float) -> None:
        if self._worker.under_way:
            await asyncio.wait(self._worker.under_way, timeout=seconds)

    async def _interrupt_steps(self) -> None:
        stubborn = set(self._worker.under_way)
        for task in stubborn:
            task.cancel()
        if stubborn:
            _, stubborn = await asyncio.wait(stubborn, timeout=PATIENCE)
        for task in stubborn:
            log.error("flow.step_ignores_cancelling", step=task.get_name())

    def _forget(self) -> None:
        self._journal.stop()
        for run in self._runs.values():
            for timer in run.timers.values():
                timer.cancel()
            run.ended.set()
            run.wake()
        self._runs.clear()


def _known(found: T | None, run: RunId) -> T:
    if found is None:
        raise UnknownRun(f"there is no run {run}")
    return found

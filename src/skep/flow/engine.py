"""The durable flow engine: starts runs, shows them, steers them, and takes them up again after a crash."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.admission.admission import Admission
from skep.flow.admission.policies import Policies, Policy
from skep.flow.definition.plan import Flow, RetryPolicy
from skep.flow.definition.registry import Registry
from skep.flow.errors import CommitFailed, UnknownRun
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.backoff import full_jitter
from skep.flow.execution.caller import Caller, Dispatch, at_once
from skep.flow.execution.following import Following
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.loading import Loader, Prepare, RunIds, check_words, nothing_to_prepare
from skep.flow.execution.observer import Guarded, Observer
from skep.flow.execution.operator import Choice
from skep.flow.execution.orders import Orders
from skep.flow.execution.policing import POLICIES, Policing
from skep.flow.execution.roster import Roster, tell
from skep.flow.execution.sharing import Sharing
from skep.flow.execution.starting import Starting, Transaction
from skep.flow.execution.steering import Done, Steering
from skep.flow.execution.tenure import Tenure
from skep.flow.execution.watchdog import Watchdog
from skep.flow.execution.why import Why
from skep.flow.execution.worker import Worker
from skep.flow.runs import Priority, RunEvent, RunFilter, RunRecord, StepRecord, StepWait
from skep.flow.steps import RunId
from skep.flow.storage import records, tables
from skep.flow.storage.database import Database
from skep.flow.storage.membership import LEASE
from skep.flow.storage.settings import Setting
from skep.flow.storage.wakeups import RUNS, Wakeups, wakeups_for

log = structlog.get_logger(__name__)

T = TypeVar("T")
Action = Literal["pause", "resume", "cancel", "retry", "rerun"]

PATIENCE = 5.0
"""Seconds that a cancelled step has to end when the engine is closed."""


class FlowEngine:
    """Runs flows durably.  Open it with `async with`.

    `environments(route)` answers what steps find in `cx.env`, or an awaitable of it; `route` is the value of
    their `on:`, or "".
    `concurrency`: steps under way at once. `capacity`: runs in memory at once; more of them wait in the
    database; with 0 it starts, shows and steers runs that others carry out. `retry_delay(tries)` takes the
    place of the policies' back-off. `shared`: other engines work on this database too, and one that is
    silent for `lease` seconds is held for dead; without it this one takes over whatever it finds.
    `dispatch`: how a call reaches its code. `prepare(contents)` fetches the code that stored plans need,
    before runs are taken over.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        environments: Callable[[str], object],
        *,
        concurrency: int = 64,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.time,
        retry_delay: Callable[[int], float] | None = None,
        new_id: Callable[[], str] | None = None,
        create_tables: bool = True,
        grace: float = 5.0,
        shared: bool = False,
        lease: float = LEASE,
        name: str = "",
        dispatch: Dispatch = at_once,
        observers: Sequence[Observer] = (),
        policies: Policies | None = None,
        prepare: Prepare = nothing_to_prepare,
    ) -> None:
        self.registry = registry
        self.policies = policies or Policies()
        self._database = database
        self._create_tables = create_tables
        self._grace = grace
        self._lease = lease
        self._observers: list[Observer] = [Guarded(observer) for observer in observers]
        self._callbacks: list[Callable[[RunRecord], None]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watchdog: Watchdog | None = None
        self._wakeups: Wakeups | None = None
        self._sharing: asyncio.Task[None] | None = None

        self._tenure = Tenure(
            database,
            shared=shared,
            lease=lease,
            name=name,
            capacity=capacity,
            policies=self.policies,
            prepare=prepare,
            refused=self._refused,
        )
        self._ledger = Ledger(self._tenure.journal(), clock)
        loop = asyncio.get_running_loop()  # its clock, for a test may have made it virtual
        self._admission = Admission(concurrency, monotonic=loop.time, policies=self.policies)
        self._worker = Worker(
            self._ledger,
            Caller(database, self._ledger, environments, dispatch),
            self._admission,
            retry_delay=full_jitter if retry_delay is None else _same_for_all(retry_delay),
            ended=self._ended,
            observers=self._observers,
        )
        loader = self._loader = Loader(registry, prepare)
        self._roster = Roster(loader, self._worker, name_suspect=self._tenure.suspect)
        why = Why(self._worker, self._roster.locks, self._roster.why)
        self._orders = Orders(self._worker, why, self._roster.withdraw)
        self._policing = Policing(database, self.policies, self._limits_changed)
        self._following = Following(
            self._ledger, self._roster, find=self.get, history=self.history, shared=shared
        )
        ids = new_id or RunIds()
        self._starting = Starting(
            *(database, loader, self._ledger, self._roster, self._tenure),
            new_id=ids,
            unclaimed=self._unclaimed,
            in_background=self._in_background,
        )
        self._steering = Steering(
            database,
            self._worker,
            self._orders,
            self._roster,
            self._tenure,
            self._starting,
            loader,
            find=self.get,
            wakeups=lambda: self._wakeups,
            unclaimed=self._unclaimed,
            new_id=ids,
        )

    async def __aenter__(self) -> Self:
        if self._create_tables:
            await self.create_tables_in(self._database)
        self._watchdog = Watchdog(self._blocked, self._grown)
        await self._policing.load()
        if self._tenure.shared:
            self._wakeups = wakeups_for(self._database)
        await self._tenure.begin(self._roster, self._worker, self._wakeups)
        await self._ledger.journal.flushed()
        if self._wakeups is not None:
            self._sharing = asyncio.create_task(self._sharer(self._wakeups).run(), name="flow-sharing")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start nothing more, give running steps `grace` seconds, interrupt them; runs can be resumed."""
        self._worker.calls.close()
        if self._worker.calls.under_way:
            await asyncio.wait(self._worker.calls.under_way, timeout=self._grace)
        await self._interrupt_steps()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ledger.journal.flushed()
            await self._close(in_order=True)
        except (CommitFailed, TimeoutError) as failure:
            log.warning("flow.closed_unwritten", error=str(failure))  # another takes up what is written
            await self._close(in_order=False)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def abandon(self) -> None:
        """Drop everything without recording it, as the death of the process would."""
        self._worker.calls.close()
        self._ledger.journal.stop()
        await self._interrupt_steps()
        await self._close(in_order=False)

    @staticmethod
    async def create_tables_in(database: Database) -> None:
        """Make the engine's tables if they are absent."""
        await database.write(lambda connection: connection.run_sync(tables.metadata.create_all))

    def on_end(self, callback: Callable[[RunRecord], None]) -> None:
        """Call it with every run that ends here, after its end is durable."""
        self._callbacks.append(callback)

    def add_observer(self, observer: Observer) -> None:
        self._observers.append(Guarded(observer))

    def forget_code(self, bundle: str) -> None:
        """The code of that bundle leaves memory: runs that need it again will have it prepared."""
        self._loader.forget(bundle)

    def depths(self) -> Mapping[int, int]:
        """How many steps are queued here, by priority."""
        return self._admission.depths()

    def under_way(self) -> int:
        """How many steps run here."""
        return len(self._worker.calls.under_way)

    # starting

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
        before: Transaction | None = None,
        priority: Priority | None = None,
        deadline: datetime | None = None,
    ) -> RunId:
        """Begin a run; return once it is durable.

        The same `key` of the same tenant answers the run it began first.  `before` comes before the run's
        creation, `transaction` after it, and all commit together (not if the key was known); if one raises,
        there is no run.

        Raises:
            UnknownFlow: no flow of that name.
            InputError: the input does not fit the flow's types.
        """
        found = self._starting.registered(flow) if isinstance(flow, str) else flow
        run = self._starting.make(found, input, priority, deadline)
        row = run.row
        row.title, row.tenant, row.labels, row.key = title or found.name, tenant, dict(labels or {}), key
        check_words(title=row.title, tenant=tenant, key=key)
        for name, value in row.labels.items():
            check_words(**{"the name of a label": name, f"label {name!r}": value})
        return await self._starting.start(run, found, transaction, before)

    def parse(self, text: str, file: str = "<generated>") -> Flow:
        """Check a generated document; it may use registered flows as sub-flows.  Raises FlowError."""
        return self.registry.parse(text, file)

    async def rerun(self, run: RunId, by: str = "", priority: Priority | None = None) -> RunId:
        """Begin a new run with the same input: of today's flow of that name, or of the same generated one.

        Raises:
            UnknownRun, InputError, Unloadable: today's flow takes another input, or a step is gone.
        """
        return await self._starting.again(run, by, priority)

    # looking

    async def wait(self, run: RunId, timeout: float | None = None) -> RunRecord:  # noqa: ASYNC109
        """Return once the run has ended.  Raises UnknownRun, or TimeoutError after so many seconds."""
        async with asyncio.timeout(timeout):
            return await self._following.end(run)

    async def get(self, run: RunId) -> RunRecord:
        async with self._database.read() as connection:
            return _known(await records.run(connection, run), run)

    async def steps(self, run: RunId) -> Sequence[StepRecord]:
        """All steps of the run's flow, also those that wait, in topological order."""
        async with self._database.read() as connection:
            return _known(await records.steps(connection, run), run)

    async def history(self, run: RunId, after: int = 0) -> Sequence[RunEvent]:
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
        where: RunFilter | None = None,
    ) -> list[RunRecord]:
        """Newest first; all of the conditions hold for each.  `before`: the last id of the page before."""
        where = where or RunFilter(tenant=tenant, labels=dict(labels or {}), active=active)
        async with self._database.read() as connection:
            return await records.runs(connection, where, limit=limit, before=before)

    async def within(
        self, connection: AsyncConnection, where: RunFilter, limit: int = 50
    ) -> Sequence[RunRecord]:
        """The runs that are meant, newest first, as somebody's transaction sees them."""
        return await records.runs(connection, where, limit=limit, before=None)

    async def select(self, where: RunFilter, limit: int = 1000) -> Sequence[RunId]:
        """The runs that are meant, newest first."""
        async with self._database.read() as connection:
            return await records.select_ids(connection, where, limit)

    def follow(self, run: RunId, after: int = 0) -> AsyncIterator[RunEvent]:
        """The whole history, then what happens, until the run has ended; none is lost or given twice."""
        return self._following.events(run, after)

    async def why(self, run: RunId) -> Sequence[StepWait]:
        """What the run, and each of its steps that has not ended, waits for; nothing if the run has ended."""
        return await self._steering.why(run)

    # steering

    async def pause(self, run: RunId, by: str = "") -> None:
        """Start no further step until it is resumed; those under way end."""
        await self._steering.order(run, "pause", {}, by)

    async def resume(self, run: RunId, by: str = "") -> None:
        await self._steering.order(run, "resume", {}, by)

    async def cancel(self, run: RunId, by: str = "") -> None:
        """Stop the run and undo what it did; return once that is decided durably.

        Raises:
            UnknownRun, WrongState: it has ended, or cannot be loaded.
        """
        await self._steering.order(run, "cancel", {}, by)

    async def resolve(self, run: RunId, step: str, choice: Choice, by: str = "") -> None:
        """Decide for a run that needs an operator; recorded in its history with who decided.

        `retry` tries what failed again.  `skip` leaves the step as it is and goes on.  `mark-undone`:
        what the step did has been taken back by hand; if the run was going forward, it is now undone.  For a
        run that needs its operator as a whole `step` is empty: `retry` loads it again, the others end it as
        failed.

        Raises:
            UnknownRun, WrongState: the step does not wait for an operator, or the choice is impossible.
        """
        await self._steering.resolve(run, step, choice, by)

    async def retry(self, run: RunId, by: str = "") -> None:
        """Try a run that has failed again: what succeeded and was kept stays, the rest is done (again).

        Raises:
            UnknownRun, WrongState: it has not ended, or ended in success.
        """
        await self._steering.retry(run, by)

    async def signal(
        self, run: RunId, name: str, value: object = None, *, key: str | None = None, by: str = ""
    ) -> None:
        """Tell the run something; a step that waits for a signal of that name takes it, now or later.

        The same `key` again changes nothing.

        Raises:
            UnknownRun, WrongState: it has ended.
        """
        await self._steering.signal(run, name, value, key, by)

    async def approve(
        self, run: RunId, step: str, approved: bool = True, *, by: str = "", comment: str = ""
    ) -> None:
        """Answer the approval that the step waits for; `approved=False` fails the step.

        Raises:
            UnknownRun, WrongState: the step does not wait for an approval.
        """
        await self._steering.approve(run, step, approved, by, comment)

    async def migrate(self, run: RunId, flow: Flow) -> None:
        """Let the run go on by another definition, of which everything that it has done must be part.

        Raises:
            UnknownRun, WrongState: it has ended, or steps of it are under way just now.
        """
        await self._steering.migrate(run, flow)

    async def bulk(self, action: Action, where: RunFilter, by: str = "", limit: int = 1000) -> Sequence[Done]:
        """Do it to every run that is meant; what cannot be done is said, and passed over."""
        return await self._steering.for_each(await self.select(where, limit), getattr(self, action), by)

    # limits

    async def limits(self) -> Sequence[Setting]:
        """What operators have set, by key."""
        return await self._policing.every()

    async def set_limit(self, key: str, policy: Policy | None, by: str = "") -> None:
        """Put the policy in force for the key, here and in every other worker; None removes it.

        Raises:
            ValueError: that is no key.
        """
        await self._policing.set(key, policy, by)
        if self._wakeups is not None:
            self._wakeups.notify(POLICIES)

    def _limits_changed(self) -> None:
        self._permits_changed()
        self._worker.calls.admit()

    def _permits_changed(self) -> None:
        if self._worker.calls.permitting is not None:
            self._worker.calls.permitting.wake()

    # runs that come and go

    def _ended(self, run: ActiveRun) -> None:
        """The end is durable."""
        self._roster.gone(run)
        if self._callbacks:
            self._in_background(self._tell(run.record()))
        if self._tenure.wants_more:
            self._in_background(self._tenure.fill_up())

    def _unclaimed(self) -> None:
        """A run waits for a worker that has room."""
        if self._wakeups is not None:
            self._wakeups.notify(RUNS)
        if self._tenure.wants_more:
            self._in_background(self._tenure.fill_up())

    def _refused(self) -> None:
        """A commit was refused, for others took this worker for dead."""
        if not self._worker.calls.closing:
            self._in_background(self._tenure.begin_anew(self._ledger))

    def _sharer(self, wakeups: Wakeups) -> Sharing:
        return Sharing(
            self._database,
            wakeups,
            self._ledger,
            self._orders,
            self._roster,
            self._tenure,
            beat=self._lease / 3,
            deliver=self._steering.deliver,
            fenced=lambda: self._tenure.begin_anew(self._ledger),
            limits=self._policing.load,
            permits=self._permits_changed,
        )

    def _blocked(self, task: str, where: str, seconds: float) -> None:
        run, _, step = task.partition("/")
        active = self._roster.runs.get(RunId(run))
        if active is not None:
            message = f"blocks the event loop for more than {seconds:.1f} s: {where}"
            self._ledger.event(active, "blocked", step, message)

    def _grown(self, size: int) -> None:
        """A step that leaks memory is among those under way; the run that kills its worker is kept apart."""
        steps = sorted(task.get_name() for task in self._worker.calls.under_way)[:20]
        log.warning("flow.memory_grows", by_mib=size // 2**20, steps=steps)
        for name in steps:
            run, _, step = name.partition("/")
            active = self._roster.runs.get(RunId(run))
            if active is not None:
                message = f"the worker grew by {size // 2**20} MiB while it ran, with {len(steps) - 1} others"
                self._ledger.event(active, "memory", step, message)

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, record: RunRecord) -> None:
        for callback in self._callbacks:
            try:
                callback(record)
            except Exception:
                log.exception("flow.callback_failed", run=record.id)

    async def _interrupt_steps(self) -> None:
        stubborn = set(self._worker.calls.under_way)
        for task in stubborn:
            task.cancel()
        if stubborn:
            _, stubborn = await asyncio.wait(stubborn, timeout=PATIENCE)
        for task in stubborn:
            log.error("flow.step_ignores_cancelling", step=task.get_name())

    async def _close(self, *, in_order: bool) -> None:
        self._ledger.journal.stop()
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.wait([self._sharing])
        if self._watchdog is not None:
            self._watchdog.close()
        await self._roster.close()
        for run in self._roster.forget():
            tell(run)
        await self._tenure.end(in_order=in_order)
        if self._wakeups is not None:
            await self._wakeups.close()


def _known(found: T | None, run: RunId) -> T:
    if found is None:
        raise UnknownRun(f"there is no run {run}")
    return found


def _same_for_all(delay: Callable[[int], float]) -> Callable[[RetryPolicy, int], float]:
    return lambda _policy, tries: delay(tries)

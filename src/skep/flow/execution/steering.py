"""What people ask of runs, wherever they go on: here, in another process, or nowhere any more."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from skep.flow.definition.plan import Flow
from skep.flow.errors import FlowFault, WrongState
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.loading import Loader, check_words
from skep.flow.execution.operator import Choice
from skep.flow.execution.orders import Orders
from skep.flow.execution.roster import Roster
from skep.flow.execution.sharing import Reply
from skep.flow.execution.starting import Starting
from skep.flow.execution.tenure import Tenure
from skep.flow.execution.waits import approval_of
from skep.flow.execution.worker import Worker
from skep.flow.runs import RunRecord, Signal, StepWait
from skep.flow.steps import RunId
from skep.flow.storage import effects, inbox
from skep.flow.storage.database import Database
from skep.flow.storage.reopening import redefine, reopen
from skep.flow.storage.wakeups import Wakeups

REPLY_PATIENCE = 15.0
"""Seconds to wait for the worker that has a run; it may have died, and another must take it over."""


class Done(Struct, frozen=True, kw_only=True):
    """What came of one run of many; `error` is "" if it was done."""

    run: RunId
    error: str = ""


class Steering:
    """`find` answers a run's record or raises UnknownRun."""

    def __init__(
        self,
        database: Database,
        worker: Worker,
        orders: Orders,
        roster: Roster,
        tenure: Tenure,
        starting: Starting,
        loader: Loader,
        *,
        find: Callable[[RunId], Awaitable[RunRecord]],
        wakeups: Callable[[], Wakeups | None],
        unclaimed: Callable[[], None],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._worker = worker
        self._orders = orders
        self._roster = roster
        self._tenure = tenure
        self._starting = starting
        self._loader = loader
        self._find = find
        self._wakeups = wakeups
        self._unclaimed = unclaimed
        self._new_id = new_id

    async def order(self, run: RunId, kind: str, body: Mapping[str, Any], by: str) -> object:
        """Have it carried out, durably; answers what JSON can say.

        Raises:
            UnknownRun, WrongState: the run has ended, or is not in a state for this.
        """
        active = self._roster.runs.get(run)
        if active is not None:
            effects.current().done = True
            answer = self._orders.carry_out(active, kind, body, by)
            await self._flushed()
            return answer
        record = await self._find(run)
        if record.state.ended or not self._tenure.shared:
            raise WrongState(f"run {run} has ended: {record.state}")
        return await self._ask(run, kind, body, by)

    async def why(self, run: RunId, step: str = "") -> Sequence[StepWait]:
        """Of one `step` alone if it is named."""
        if run not in self._roster.runs and (await self._find(run)).state.ended:
            return ()
        return msgspec.convert(await self.order(run, "why", {"step": step}, ""), tuple[StepWait, ...])

    async def resolve(self, run: RunId, step: str, choice: Choice, by: str) -> None:
        active = self._roster.runs.get(run)
        if active is not None and active.isolated:
            await self._resolve_isolated(active, choice, by)
        else:
            await self.order(run, "resolve", {"step": step, "choice": choice}, by)

    async def retry(self, run: RunId, by: str) -> None:
        await self._find(run)
        worker = self._tenure.claim()
        await self._database.write(lambda connection: reopen(connection, run, worker))
        if worker is None:
            self._unclaimed()
        else:
            stored = await self._loader.fetch(self._database, run)
            if stored.row.worker != self._tenure.member.id:
                return  # this worker was fenced meanwhile, and another has the run
            self._roster.adopt([stored])
            active = self._roster.runs[run]
            self._worker.ledger.event(active, "run-retried", message=f"by {by}" if by else "")
            await self._flushed()

    async def migrate(self, run: RunId, flow: Flow) -> None:
        active = self._roster.runs.get(run)
        if active is None:
            record = await self._find(run)
            raise WrongState(f"run {run} has ended or goes on elsewhere: {record.state}")
        if active.tasks:
            running = ", ".join(map(active.name, sorted(active.tasks)))
            raise WrongState(f"run {run} cannot change its definition while steps run: {running}")
        await self._starting.store_definition(flow)
        self._worker.ledger.event(active, "run-migrated", message=f"to definition {flow.hash[:12]}")
        self._worker.calls.hold(active)
        active.stop_timers()
        active.abandoned = True
        await self._change(active, flow)

    async def _change(self, run: ActiveRun, flow: Flow) -> None:
        """It is taken up again whether this succeeds or not."""
        try:
            await self._flushed()
            total = len(flow.plan.steps)
            await self._database.write(lambda connection: redefine(connection, run.id, flow.hash, total))
        finally:
            await self._reload(run)

    async def _reload(self, run: ActiveRun) -> None:
        stored = await self._loader.fetch(self._database, run.id)
        if self._roster.runs.get(run.id) is run:  # else this worker was fenced meanwhile
            self._roster.reload(run, stored)

    async def signal(self, run: RunId, name: str, value: object, key: str | None, by: str) -> None:
        check_words(**{"the name of the signal": name, "its key": key, "by": by})
        identifier = f"key/{key}" if key else self._new_id()
        if run not in self._roster.runs:
            record = await self._find(run)
            if await self._database.write(lambda connection: inbox.has_signal(connection, run, identifier)):
                return
            if record.state.ended:
                raise WrongState(f"run {run} has ended: {record.state}")
        body = msgspec.json.encode(value)
        signal = Signal(identifier, name, body, by, self._worker.ledger.now())
        new = await self._database.write(lambda connection: inbox.add_signal(connection, run, signal))
        if new and run in self._roster.runs:
            self.deliver(run, signal)
            await self._flushed()

    async def approve(self, run: RunId, step: str, approved: bool, by: str, comment: str) -> None:
        waits = await self.why(run, step)
        asked = {wait.step for wait in waits for reason in wait.reasons if reason.kind == "approval"}
        if step not in asked:
            raise WrongState(f"step {step!r} of run {run} does not wait for an approval")
        await self.signal(run, approval_of(step), {"approved": approved, "comment": comment}, None, by)

    def deliver(self, run: RunId, signal: Signal) -> None:
        """Tell the run at once, if it goes on here; the signal is durable."""
        active = self._roster.runs.get(run)
        if active is not None:
            self._worker.waits.deliver(active, signal)
            self._worker.settle(active)

    async def for_each(
        self, runs: Sequence[RunId], action: Callable[[RunId, str], Awaitable[object]], by: str
    ) -> Sequence[Done]:
        """What cannot be done is said, and passed over."""
        done = []
        for run in runs:
            try:
                await action(run, by)
                done.append(Done(run=run))
            except FlowFault as error:
                done.append(Done(run=run, error=error.message))
        return done

    async def _ask(self, run: RunId, kind: str, body: Mapping[str, Any], by: str) -> object:
        """Have the worker that has the run carry it out."""
        request = await inbox.ask(self._database, run, kind, msgspec.json.encode(body), by)
        stored = await inbox.reply_of(self._database, request, REPLY_PATIENCE, self._wakeups())
        if stored is None:
            raise WrongState(f"run {run} has no worker just now; what was asked is done when it has one")
        reply = msgspec.json.decode(stored, type=Reply)
        if reply.error:
            raise WrongState(reply.error)
        return reply.answer

    async def _resolve_isolated(self, run: ActiveRun, choice: Choice, by: str) -> None:
        self._worker.ledger.event(run, "resolved", message=f"{choice} by {by}" if by else choice)
        if choice == "retry":
            await self._flushed()
            await self._reload(run)
        else:
            self._worker.give_up(run)
        await self._flushed()

    async def _flushed(self) -> None:
        await self._worker.ledger.journal.flushed()

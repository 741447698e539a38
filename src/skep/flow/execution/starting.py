"""Begins runs."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.definition.plan import Flow
from skep.flow.errors import CommitFailed, UnknownFlow
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.execution import Execution
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.loading import MOST_PLANS, Loader, check_input, claims_of, priority_of
from skep.flow.execution.roster import Roster
from skep.flow.execution.tenure import Tenure
from skep.flow.runs import Priority, RunRow
from skep.flow.steps import RunId
from skep.flow.storage import effects, records
from skep.flow.storage.database import Database
from skep.flow.storage.effects import harmless
from skep.flow.storage.journal import Journal

Transaction = Callable[[AsyncConnection], Awaitable[None]]
LOOK_AGAIN = 0.5
"""Seconds."""
MAKE_SURE = 6 * 3600.0
"""Seconds after which a definition is stored again; whoever sweeps leaves those of the last two days."""


class Starting:
    """Makes runs durable and has them taken up; `unclaimed` is told that one waits for a worker."""

    def __init__(
        self,
        database: Database,
        loader: Loader,
        ledger: Ledger,
        roster: Roster,
        tenure: Tenure,
        *,
        new_id: Callable[[], str],
        unclaimed: Callable[[], None],
        in_background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._database = database
        self._loader = loader
        self._ledger = ledger
        self._roster = roster
        self._tenure = tenure
        self._new_id = new_id
        self._unclaimed = unclaimed
        self._in_background = in_background
        self._stored: dict[str, asyncio.Future[None]] = {}
        self._stored_at: dict[str, float] = {}

    def make(
        self, flow: Flow, given: Mapping[str, object], priority: Priority | None, deadline: datetime | None
    ) -> ActiveRun:
        """Raises InputError: the input does not fit the flow's types."""
        bound = self._loader.bind(flow)
        values = check_input(flow.name, flow.types, given)
        row = RunRow(
            id=RunId(self._new_id()),
            flow=flow.name,
            definition=flow.hash,
            title=flow.name,
            tenant="",
            labels={},
            key=None,
            input=msgspec.json.encode(values),
            locks=claims_of(flow.plan, values),
            total=len(flow.plan.steps),
            created=self._ledger.now(),
            priority=priority_of(flow.plan, values, priority),
            deadline=None if deadline is None else deadline.timestamp(),
        )
        return ActiveRun(row, bound, Execution(bound.graph, values))

    def registered(self, name: str) -> Flow:
        try:
            return self._loader.registry.flow(name)
        except LookupError as error:
            raise UnknownFlow(str(error)) from error

    async def again(self, run: RunId, by: str, priority: Priority | None) -> RunId:
        """A new run with the same input: of today's flow of that name, or of the same generated one."""
        stored = await self._loader.fetch(self._database, run)
        old = stored.row
        try:
            flow = self._loader.registry.flow(old.flow)
        except LookupError:
            flow = self._loader.registry.stored_flow(stored.content)
        new = self.make(flow, msgspec.json.decode(old.input), priority or Priority(old.priority), None)
        new.row.title, new.row.tenant, new.row.parent = old.title, old.tenant, run
        new.row.labels = old.labels | ({"started-by": by} if by else {})
        return await self.start(new, flow, None)

    async def start(
        self, run: ActiveRun, flow: Flow, transaction: Transaction | None, before: Transaction | None = None
    ) -> RunId:
        """The run is taken up as soon as it is durable, also if the caller has gone by then."""
        await self.store_definition(flow)
        run.row.worker = self._tenure.claim(coming=run)
        take = self._unclaimed if run.row.worker is None else partial(self._tenure.take, run)
        if run.row.key is None and transaction is None and before is None:
            journal = self._ledger.journal
            effects.current().done = True
            journal.create_run(run.row)
            journal.afterwards(partial(_unless_refused, journal, run.id, take))
            await journal.flushed()
            journal.require_taken(run.id)
            return run.id
        return await self._start_within(run, transaction, before, take)

    async def store_definition(self, flow: Flow) -> None:
        """Durable before the first run that needs it; the same content is stored once, and made sure of now
        and then, for those that nobody has needed for long are swept away."""
        stored, since = self._stored.get(flow.hash), self._stored_at.get(flow.hash, 0.0)
        failed = stored and stored.done() and (stored.cancelled() or stored.exception() is not None)
        now = self._ledger.now()
        if stored is None or failed or abs(now - since) > MAKE_SURE:
            journal = self._ledger.journal
            values = (flow.hash, flow.name, flow.content, now)
            with harmless():
                stored = self._stored[flow.hash] = self._database.submit(
                    lambda connection: journal.write_definition(connection, values)
                )
            self._stored_at[flow.hash] = now
            if len(self._stored) > MOST_PLANS:
                oldest = next(iter(self._stored))
                del self._stored[oldest], self._stored_at[oldest]
        if not stored.done():
            await asyncio.shield(stored)

    async def _take_if_there(self, run: RunId, take: Callable[[], None]) -> None:
        """The connection broke: whether the run was committed is known only once the database is back."""
        journal = self._ledger.journal
        while not journal.stopped and run not in self._roster.runs:
            with suppress(CommitFailed, SQLAlchemyError, OSError):
                if await _exists(self._database, run):
                    take()
                return
            await asyncio.sleep(LOOK_AGAIN)

    async def _start_within(
        self,
        run: ActiveRun,
        transaction: Transaction | None,
        before: Transaction | None,
        take: Callable[[], None],
    ) -> RunId:
        journal, row = self._ledger.journal, run.row
        in_doubt = False

        async def change(connection: AsyncConnection) -> RunId:
            if in_doubt and await records.run(connection, run.id) is not None:
                return run.id
            known = row.key and await records.by_key(connection, row.tenant, row.key)
            if known:
                return known
            if before is not None:
                await before(connection)
            await journal.write_run(connection, row)
            if transaction is not None:
                await transaction(connection)
            return run.id

        def created(done: asyncio.Future[RunId]) -> None:
            if not done.cancelled() and done.exception() is None and done.result() == run.id:
                take()

        try:
            while True:
                future = self._database.submit(change)
                future.add_done_callback(created)
                try:
                    return await asyncio.shield(future)
                except CommitFailed as error:
                    if in_doubt or not error.in_doubt:
                        raise
                    in_doubt = True  # once more: the database is waited for, and then it is known
        except CommitFailed:
            self._in_background(self._take_if_there(run.id, take))
            raise
        except IntegrityError:
            async with self._database.read() as connection:
                known = row.key and await records.by_key(connection, row.tenant, row.key)
            if not known:
                raise
            return known


async def _exists(database: Database, run: RunId) -> bool:
    async with database.read() as connection:
        return await records.run(connection, run) is not None


def _unless_refused(journal: Journal, run: RunId, take: Callable[[], None]) -> None:
    with suppress(CommitFailed):
        journal.require_taken(run)
        take()

"""This worker's place among those that share the database: joining, taking runs up, being fenced, leaving."""

import asyncio
from collections.abc import Callable
from weakref import WeakSet

import structlog

from skep.flow.admission.policies import Policies
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.ledger import Ledger
from skep.flow.execution.loading import Prepare
from skep.flow.execution.permitting import Permitting
from skep.flow.execution.roster import Roster, tell
from skep.flow.execution.worker import Worker
from skep.flow.steps import RunId
from skep.flow.storage.database import Database
from skep.flow.storage.gate import SharedGate
from skep.flow.storage.journal import Journal
from skep.flow.storage.membership import Membership
from skep.flow.storage.permits import SharedPermits
from skep.flow.storage.wakeups import Wakeups

log = structlog.get_logger(__name__)

SPARE = 16
"""Runs of a dead worker that are taken up at once by one that is full."""


class Tenure:
    """`member` changes each time this worker was fenced and begins anew, and the ledger's journal with it.

    `refused` is called when a commit was refused because the worker is fenced.
    """

    def __init__(
        self,
        database: Database,
        *,
        shared: bool,
        lease: float,
        name: str,
        capacity: int,
        policies: Policies,
        prepare: Prepare,
        refused: Callable[[], None],
    ) -> None:
        self.shared = shared
        self._lease = lease
        self.member = Membership(database, shared=shared, name=name, lease=lease)
        self._database = database
        self._name = name
        self._capacity = capacity
        self._policies = policies
        self._prepare = prepare
        self._refused = refused
        self._left_over = self._beginning = False
        self._turn = asyncio.Lock()
        self._coming: WeakSet[ActiveRun] = WeakSet()
        """New runs that are not durable yet; `_arriving`: old ones whose code is being fetched."""
        self._arriving = 0
        self._roster: Roster | None = None
        self._worker: Worker | None = None
        self._wakeups: Wakeups | None = None
        self._gate: SharedGate | None = None

    def journal(self) -> Journal:
        return Journal(
            self._database,
            check=self.member.check,
            refused=self._refused,
            poisoned=self._poisoned,
            lease=self.member.lease,
        )

    def _poisoned(self, run: RunId, reason: str) -> None:
        """The database will never take what this run has come to."""
        if self._roster is not None:
            self._roster.isolate(run, f"the database does not take what it has come to: {reason}")

    async def begin(self, roster: Roster, worker: Worker, wakeups: Wakeups | None) -> None:
        """`wakeups` where the database is shared."""
        self._roster, self._worker, self._wakeups = roster, worker, wakeups
        await self.member.join()
        if wakeups is not None:
            roster.gate = self._gate = SharedGate(self._database, self.member, wakeups)
            permits = SharedPermits(self._database, self.member, wakeups)
            worker.calls.permitting = Permitting(self._policies, permits, worker.calls.submit)
        await self.adopt()

    async def end(self, *, in_order: bool) -> None:
        """Give everything back, or leave it as if this worker had died."""
        await self._stop_permitting()
        if self._gate is not None and in_order:
            await self._gate.close()
        elif self._gate is not None:
            await self._gate.abandon()
        if in_order:
            await self.member.leave()

    async def adopt(self, *, dead: bool = False) -> None:
        """Take up what nobody has, as far as there is room.

        `dead`: a worker has died; then a few even without, for all that is here may wait for what they hold.
        """
        assert self._roster is not None  # noqa: S101  (begun)
        member = self.member
        async with self._turn:
            room = max(self._room, SPARE if dead and self._capacity else 0)
            if room <= 0:
                self._left_over = True
                return
            self._left_over = False  # a run that is left to nobody meanwhile says so again
            found = await member.adopt(room)
            self._left_over = self._left_over or len(found) == room
            self._arriving += len(found)
        try:
            await self._prepare(list({item.row.definition: item.content for item in found}.values()))
            if member is self.member:  # else it was fenced meanwhile, and others have them
                self._roster.adopt(found)
        finally:
            self._arriving -= len(found)

    async def fill_up(self) -> None:
        """The same, unless another one has done so meanwhile."""
        if self.wants_more:
            await self.adopt()

    async def _stop_permitting(self) -> None:
        if self._worker is not None and self._worker.calls.permitting is not None:
            permitting, self._worker.calls.permitting = self._worker.calls.permitting, None
            await permitting.close()

    async def begin_anew(self, ledger: Ledger) -> None:
        """Others took this worker for dead and have its runs: it goes on under another name, with nothing.

        One that had the database to itself does not: whoever came later has it now.
        """
        assert self._roster is not None and self._worker is not None  # noqa: S101, PT018  (begun)
        if self._beginning:
            return  # several notice it at once
        self._beginning = True
        try:
            await self._begin_anew(ledger, self._roster, self._worker)
        finally:
            self._beginning = False

    async def _begin_anew(self, ledger: Ledger, roster: Roster, worker: Worker) -> None:
        log.error("flow.fenced", worker=self.member.id)
        ledger.journal.stop()
        for run in roster.forget():
            tell(run)
        worker.calls.drop()
        await self._stop_permitting()
        if self._gate is not None:
            await self._gate.abandon()
            self._gate = None
        if not self.shared:
            log.error("flow.replaced", worker=self.member.id)
            return  # two that join again and again would fence each other for ever
        self.member = Membership(self._database, shared=self.shared, name=self._name, lease=self._lease)
        ledger.journal = self.journal()
        await self.begin(roster, worker, self._wakeups)

    async def suspect(self, run: RunId | None) -> None:
        await self.member.suspect(run)

    def claim(self, coming: ActiveRun | None = None) -> str | None:
        """Whose a new run is: ours, or nobody's for now if there is no room for it here.

        One that is `coming` has its room from now on, though it is taken only when it is durable.
        """
        assert self._roster is not None  # noqa: S101  (begun)
        if self._room > 0:
            if coming is not None:
                self._coming.add(coming)
            return self.member.id
        self._left_over = True
        return None

    def take(self, run: ActiveRun) -> None:
        """The run that was coming is durable, and goes on here."""
        assert self._roster is not None  # noqa: S101  (begun)
        self._coming.discard(run)
        self._roster.take(run)

    @property
    def _room(self) -> int:
        """For how many more runs."""
        assert self._roster is not None  # noqa: S101  (begun)
        return self._capacity - len(self._roster.runs) - len(self._coming) - self._arriving

    @property
    def wants_more(self) -> bool:
        """There is room again, and there may be runs that wait for it."""
        return bool(self._left_over and self._roster and len(self._roster.runs) <= self._capacity // 2)

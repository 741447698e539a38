"""Locks and run limits that the workers of one database keep together; how they stand in line: see `lines`.

What a run holds stays with it when its worker dies: the one that takes the run over asks again and has it at
once.  A run that has ended holds nothing, whoever forgot to say so.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import CommitFailed, Fenced
from skep.flow.runs import Claim, Reason
from skep.flow.steps import RunId
from skep.flow.storage import lines
from skep.flow.storage.database import Database
from skep.flow.storage.lines import Line
from skep.flow.storage.membership import Membership
from skep.flow.storage.shared import Turn, take_turn, transact
from skep.flow.storage.wakeups import ANYTHING, Wakeups, lock_topic

log = structlog.get_logger(__name__)

POLL = 2.0
"""Seconds after which those who wait look by themselves."""
_NO_LINE = Line()


class _Wish(Struct, frozen=True):
    claims: tuple[Claim, ...]
    priority: int
    granted: Callable[[], None]


class _Round(Struct):
    """What one transaction is about, and what came of it."""

    released: set[RunId]
    asked: set[RunId]
    looked: set[RunId]
    """Whether they hold their keys is to be seen; so is it of those who asked."""
    keys: set[str]
    """Of these it is to be seen who may have them."""
    everybody: bool
    """These are all the keys that anybody waits for here."""
    granted: set[RunId] = set()
    standing: dict[RunId, bool] = {}
    heads: dict[str, Line] = {}


class SharedGate:
    """Who holds which keys, among all workers of the database; to be used by the loop that made it.

    A run whose `request` is to be granted must be in the tables already.
    """

    def __init__(
        self, database: Database, membership: Membership, wakeups: Wakeups, *, poll: float = POLL
    ) -> None:
        self._database = database
        self._membership = membership
        self._wakeups = wakeups
        self._poll = poll
        self._waiting: dict[RunId, _Wish] = {}
        self._known: set[RunId] = set()
        self._asked: set[RunId] = set()
        self._released: set[RunId] = set()
        self._woken: set[RunId] = set()
        self._look = False
        self._seen: dict[str, Line] = {}
        self._something = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._deaf = wakeups.listen(self._hear)

    def request(
        self, run: RunId, claims: Sequence[Claim], priority: int, granted: Callable[[], None]
    ) -> None:
        """Call `granted` once the run has all of its keys; at once if there are none."""
        if not claims:
            granted()
            return
        self._waiting[run] = _Wish(tuple(claims), priority, granted)
        self._known.add(run)
        self._asked.add(run)
        self._wake()

    def release(self, run: RunId) -> None:
        """Give back the keys of a run that has ended, or stop waiting for them.

        A run that holds its keys and has not ended keeps them, for whoever goes on with it.
        """
        self._waiting.pop(run, None)
        self._asked.discard(run)
        if run in self._known:
            self._released.add(run)
            self._wake()

    def why(self, run: RunId) -> tuple[Reason, ...]:
        """What the run waits for, as it was seen last: at most a poll ago."""
        wish = self._waiting.get(run)
        if wish is None:
            return ()
        reasons = (_reason(run, claim, self._seen.get(claim.key, _NO_LINE)) for claim in wish.claims)
        return tuple(reason for reason in reasons if reason) or (_unanswered(wish.claims),)

    async def close(self) -> None:
        """Tell the others what was released, if the database is there, and stop."""
        self._deaf()
        self._closing = True
        self._something.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def abandon(self) -> None:
        """Stop at once and tell nobody, as the death of the process would."""
        self._deaf()
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _wake(self) -> None:
        self._something.set()
        if self._task is None and not self._closing:
            self._task = asyncio.create_task(self._go_round(), name="flow-gate")

    def _hear(self, topic: str) -> None:
        kind, _, run = topic.partition("/")
        if topic == ANYTHING:
            self._look = True
        elif kind == "lock" and run in self._waiting:
            self._woken.add(RunId(run))
        else:
            return
        if self._waiting:
            self._something.set()

    async def _go_round(self) -> None:
        pause = 0.0
        while await self._something_to_do(pause):
            round_ = self._begin()
            try:
                await transact(self._database, partial(self._carry_out, round_))
            except Fenced:
                self._waiting.clear()
                return
            except CommitFailed as error:
                if self._closing:
                    return
                pause = min(self._poll, pause * 2 or 0.1)
                log.warning("flow.gate_failed", error=str(error), again_in=pause)
                self._take_back(round_)
            except Exception:  # of one run, perhaps: the others wait, too
                log.exception("flow.defect")
                if self._closing:
                    return
                pause = self._poll
                self._take_back(round_)
            else:
                pause = 0.0
                self._conclude(round_)

    async def _something_to_do(self, pause: float) -> bool:
        """Wait for it; False: there will be nothing any more.  After a while those who wait look anyhow."""
        if self._closing and not self._released:
            return False
        await asyncio.sleep(pause)
        try:
            async with asyncio.timeout(self._poll if self._waiting else None):
                await self._something.wait()
        except TimeoutError:
            self._look = True
        self._something.clear()
        await asyncio.sleep(0)  # what is asked in this same moment shares the transaction
        return not self._closing or bool(self._released)

    def _begin(self) -> _Round:
        everybody = self._waiting if self._look else ()
        asked = {run for run in self._asked if run in self._waiting}
        keys = {claim.key for run in (*asked, *everybody) for claim in self._waiting[run].claims}
        looked = {run for run in (*self._woken, *everybody) if run in self._waiting}
        round_ = _Round(self._released, asked, looked, keys, everybody=self._look)
        self._released, self._asked, self._woken, self._look = set(), set(), set(), False
        return round_

    def _take_back(self, round_: _Round) -> None:
        self._released |= round_.released
        self._asked |= round_.asked
        self._look = True
        self._something.set()

    async def _carry_out(self, round_: _Round, connection: AsyncConnection) -> None:
        await self._membership.check(connection)
        await take_turn(connection, Turn.GATE)
        freed = await lines.leave(connection, list(round_.released), self._membership.id)
        wishes = {run: self._waiting[run] for run in round_.asked if run in self._waiting}
        await lines.join(connection, {run: (wish.claims, wish.priority) for run, wish in wishes.items()})
        round_.granted, round_.heads = await lines.grant(connection, round_.keys | freed)
        mine = round_.asked | round_.looked | round_.released
        round_.standing = await lines.standing(connection, mine | (round_.granted & self._waiting.keys()))

    def _conclude(self, round_: _Round) -> None:
        if round_.everybody:
            self._seen.clear()
        self._seen |= round_.heads
        self._known -= {run for run in round_.released if run not in round_.standing} - self._waiting.keys()
        self._asked |= {run for run in round_.asked | round_.looked if run not in round_.standing}
        for run in sorted(round_.granted - self._waiting.keys()):
            self._wakeups.notify(lock_topic(run))
        for run, held in sorted(round_.standing.items()):
            if held and run in self._waiting and run not in self._released:
                self._call(self._waiting.pop(run))

    def _call(self, wish: _Wish) -> None:
        try:
            wish.granted()
        except Exception:
            log.exception("flow.defect")


def _reason(run: RunId, claim: Claim, line: Line) -> Reason | None:
    kind = "lock" if claim.capacity == 1 else "limit"
    holders = tuple(holder for holder in line.holders if holder != run)
    if holders:
        held = f"{claim.key} is held by {_runs(holders)}"
        message = f"{held}." if claim.capacity == 1 else f"{held}: {len(holders)} of {claim.capacity}."
        return Reason(kind=kind, subject=claim.key, message=message, holders=holders)
    before = tuple(other for other in line.next if other != run)
    if run in line.next or not before:
        return None
    return Reason(kind=kind, subject=claim.key, message=f"{_runs(before)} waits for {claim.key} before it.")


def _unanswered(claims: Sequence[Claim]) -> Reason:
    keys = ", ".join(claim.key for claim in claims)
    return Reason(kind="lock", subject=claims[0].key, message=f"It has just asked for {keys}.")


def _runs(runs: Iterable[RunId]) -> str:
    return ", ".join(f"run {run}" for run in runs)

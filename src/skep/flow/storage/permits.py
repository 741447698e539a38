"""Concurrency limits and rates of steps that the workers of one database keep together.

Every step under way has a row for each key on which it counts; every rate has a bucket of tokens.  A worker
whose steps must wait leaves a mark for the first of them, by priority, then age of its run: the others leave
it a place.  So a busy worker does not keep another one out by being nearer.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.runs import Priority, Reason
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.database import Database
from skep.flow.storage.membership import Membership
from skep.flow.storage.shared import Turn, now, take_turn, transact
from skep.flow.storage.tally import Bucket, Order, Tally, Wanted
from skep.flow.storage.unfinished import slices
from skep.flow.storage.wakeups import PERMITS, Wakeups

MOST_HOLDERS = 20
"""So many are named to whoever asks why."""
_permits, _buckets = tables.permits.c, tables.buckets.c


class SharedPermits:
    """Who may go now, among all workers of the database.  `PERMITS` wakes those who should ask again."""

    def __init__(self, database: Database, membership: Membership, wakeups: Wakeups) -> None:
        self._database = database
        self._membership = membership
        self._wakeups = wakeups
        self._marked = False

    async def acquire(self, wanted: Sequence[Wanted]) -> list[Reason | None]:
        """Answers for each whether it may go (None), in order, or what stands against it.

        Give all that wait here for such a limit: whoever is not among them waits no more.  Whoever has its
        permits already gets them again.

        Raises:
            Fenced: this worker is held for dead.
            CommitFailed: the database did not answer; ask again.
        """

        async def acquire(connection: AsyncConnection) -> tuple[list[Reason | None], bool]:
            await self._membership.check(connection)
            await take_turn(connection, Turn.PERMITS)
            await self._drop(connection, wanted)
            tally = await _tally(connection, wanted)
            reasons = [tally.judge(one) for one in wanted]
            await self._record(connection, tally)
            return reasons, bool(tally.marks)

        if not wanted and not self._marked:
            return []
        waited, self._marked = self._marked, True
        reasons, self._marked = await transact(self._database, acquire)
        if waited and not self._marked:
            self._wakeups.notify(PERMITS)  # nobody has to leave it a place any more
        return reasons

    async def release(self, ended: Sequence[tuple[RunId, str]]) -> None:
        """These steps (run and name) are under way no more.  Those that had nothing are passed over."""

        async def release(connection: AsyncConnection) -> int:
            removed = 0
            for some in slices(ended):
                mine = (_permits.worker == self._membership.id) & _permits.key.not_like("?%")
                steps = tuple_(_permits.run, _permits.step).in_(some)
                removed += (await connection.execute(delete(tables.permits).where(mine, steps))).rowcount
            return removed

        if await transact(self._database, release):
            self._wakeups.notify(PERMITS)

    async def why(self, wanted: Wanted) -> tuple[Reason, ...]:
        """Everything that stands against it now, with those who have the permits (`run/step`)."""
        async with self._database.read() as connection:
            tally = await _tally(connection, [wanted], self._membership.id)
            each = (tally.judge(replace(wanted, limits=(use,))) for use in wanted.limits)
            return tuple([await _with_holders(connection, reason) for reason in each if reason])

    async def _drop(self, connection: AsyncConnection, wanted: Sequence[Wanted]) -> None:
        """The marks of this worker, and what was given to the same steps by an answer that got lost."""
        mine = (_permits.worker == self._membership.id) & _permits.key.like("?%")
        await connection.execute(delete(tables.permits).where(mine))
        for some in slices([(one.run, one.step) for one in wanted]):
            again = tuple_(_permits.run, _permits.step).in_(some)
            await connection.execute(delete(tables.permits).where(again))

    async def _record(self, connection: AsyncConnection, tally: Tally) -> None:
        marks = [(_mark_of(one.priority, key), one) for key, one in tally.marks.items()]
        rows = [
            {"key": key, "run": one.run, "step": one.step, "worker": self._membership.id}
            for key, one in (*tally.permitted, *marks)
        ]
        if rows:
            await connection.execute(tables.permits.insert(), rows)
        if tally.buckets:
            await _save(connection, tally.buckets)


def _mark_of(priority: int, key: str) -> str:
    return f"?{priority}/{key}"


async def _tally(connection: AsyncConnection, wanted: Sequence[Wanted], but: str = "") -> Tally:
    """`but`: whose marks do not count."""
    keys = sorted({use.key for one in wanted for use in one.limits})
    counts: dict[str, int] = {}
    buckets: dict[str, Bucket] = {}
    ahead: dict[str, list[Order]] = defaultdict(list)
    for some in slices(keys):
        counted = select(_permits.key, func.count()).where(_permits.key.in_(some)).group_by(_permits.key)
        counts |= {row[0]: row[1] for row in await connection.execute(counted)}
        kept = select(tables.buckets).where(_buckets.key.in_(some))
        buckets |= {row.key: Bucket(row.tokens, row.at) for row in await connection.execute(kept)}
        marks = {_mark_of(priority, key): (int(priority), key) for key in some for priority in Priority}
        marked = select(_permits.key, _permits.run).where(_permits.key.in_(marks), _permits.worker != but)
        for mark, run in await connection.execute(marked):
            priority, key = marks[mark]
            ahead[key].append((priority, RunId(run)))
    time = (await connection.execute(select(now(connection)))).scalar_one()
    return Tally(counts, buckets, ahead, time)


async def _save(connection: AsyncConnection, buckets: Mapping[str, Bucket]) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(tables.buckets)
    changed = {"tokens": statement.excluded.tokens, "at": statement.excluded.at}
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_=changed),
        [{"key": key, "tokens": bucket.tokens, "at": bucket.at} for key, bucket in buckets.items()],
    )


async def _with_holders(connection: AsyncConnection, reason: Reason) -> Reason:
    if reason.kind != "limit" or reason.holders:
        return reason
    query = select(_permits.run, _permits.step).where(_permits.key == reason.subject)
    found = await connection.execute(query.order_by(_permits.run, _permits.step).limit(MOST_HOLDERS))
    return replace(reason, holders=tuple(f"{run}/{step}" for run, step in found))

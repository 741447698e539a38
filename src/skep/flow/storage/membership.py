"""Which workers live, and which of them has which run.

Each worker has one row, with a lease by the database's clock.  Whoever finds a lease expired *fences* its
worker: the row changes in the transaction that takes its runs over, and every commit of a journal looks at
its own row first, under a lock.  So a worker that was held for dead and only slept finds its next commit
refused as a whole, whatever the clocks did; at worst a clock that jumps makes runs change hands.
"""

import math
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Update,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import Fenced
from skep.flow.runs import StoredRun
from skep.flow.steps import RunId
from skep.flow.storage import tables, unfinished
from skep.flow.storage.database import Database
from skep.flow.storage.leases import Lease
from skep.flow.storage.shared import Turn, now, take_turn, transact

LEASE = 6.0
LONGEST_LEASE = 10
"""In leases from now: whose reaches further was given before the clock was put back."""
_STALLED = 5
"""In leases: a transaction that is begun and does nothing for so long is ended by the server, for the row of
its worker is locked meanwhile, and nobody could take over from a process that hangs there."""
_FINITE = 1e18
"""Seconds since 1970 that are beyond every lease but the exclusive one."""
_workers, _runs = tables.workers.c, tables.runs.c
_other = tables.workers.alias("other").c


class News(Struct, frozen=True):
    """What is there for a worker to do that nobody told it."""

    unowned: bool
    """There are runs that nobody has."""
    dead: bool
    """Workers are dead, or their runs have not all been taken over."""
    requests: bool
    """Requests of its runs wait for an answer."""
    signals: bool
    """The signals that no step of its runs has taken are others than they were last time."""


class Membership:
    """One worker's membership, from `join` to `leave` or until it is fenced.

    After `Fenced` make another one, with a journal of its own: the old one is refused for ever.  A member
    that is not `shared` has the database to itself: it fences whoever is there when it joins, and its lease
    never expires; but whoever joins after it has the database then.  `lease` is in seconds, the same for all.
    """

    def __init__(self, database: Database, *, shared: bool, name: str = "", lease: float = LEASE) -> None:
        self.name = name or socket.gethostname()
        self.id = f"{self.name[:23]}-{secrets.token_hex(8)}"
        self._database = database
        self._shared = shared
        self._lease = lease
        self.lease = Lease(self.id, _STALLED * lease)
        self._seen: tuple[object, ...] = (0, 0.0)

    async def join(self) -> None:
        """Become a live worker.  Call it once, before anything else."""
        await transact(self._database, self._join)

    async def check(self, connection: AsyncConnection) -> None:
        """See to it that what this transaction commits counts: until it ends, nobody can fence this worker.

        Raises:
            Fenced: this worker is held for dead.
        """
        if await self.lease.state(connection) != "live":
            raise self._fenced()

    async def renew(self) -> News:
        """Prolong the lease, and hear what is new: one statement, to be sent every third of a lease.

        Raises:
            Fenced: this worker is held for dead.
            CommitFailed: the database did not answer; the lease goes on running out.
        """
        return await transact(self._database, self._renew)

    async def adopt(self, room: int) -> list[StoredRun]:
        """Take over at most `room` runs that nobody carries out; two workers never get the same one.

        Those of dead workers come first, then those that nobody has had or that were given back; both by
        priority, then age.  Their epochs have grown; to count crashes is the caller's business.

        Raises:
            Fenced: this worker is held for dead itself.
        """

        async def adopt(connection: AsyncConnection) -> list[StoredRun]:
            await self.check(connection)
            await self._shorten_leases(connection)
            expired = self._others().where(_workers.expires < now(connection))
            await self._fence(connection, expired.with_for_update(skip_locked=True))
            suspects = await _suspects(connection)
            taken = await self._take(connection, room, suspects)
            if suspects:
                await _forget_the_dead(connection)
            return taken

        return await transact(self._database, adopt)

    async def suspect(self, run: RunId | None) -> None:
        """Say which run is carried out alone now: should this worker die, it was this one.

        Raises:
            Fenced: this worker is held for dead.
        """

        async def suspect(connection: AsyncConnection) -> None:
            changed = await connection.execute(self._change_mine().values(suspect=run).returning(_workers.id))
            if changed.first() is None:
                raise self._fenced()

        await transact(self._database, suspect)

    async def leave(self) -> None:
        """Give the unfinished runs back, for anyone to take.  One that is fenced has none any more."""

        async def leave(connection: AsyncConnection) -> None:
            left = self._change_mine().values(state="left").returning(_workers.id)
            if (await connection.execute(left)).first() is None:
                return
            await _withdraw(connection, [self.id])
            mine = and_(_runs.worker == self.id, _runs.finished.is_(None))
            await connection.execute(update(tables.runs).where(mine).values(worker=None))
            await _forget_the_dead(connection)

        await transact(self._database, leave)

    async def _join(self, connection: AsyncConnection) -> None:
        """An exclusive member fences everybody; a shared one the exclusive ones, who would live for ever."""
        await take_turn(connection, Turn.JOINING)
        rivals = self._others().where(_workers.expires > _FINITE) if self._shared else self._others()
        await self._fence(connection, rivals.with_for_update())
        await _release_orphans(connection)
        await _forget_the_dead(connection)
        time = now(connection)
        expires = time + self._lease if self._shared else math.inf
        row = {"id": self.id, "name": self.name, "state": "live", "started": time, "expires": expires}
        await connection.execute(insert(tables.workers).values(row))

    async def _fence(self, connection: AsyncConnection, whom: Select[Any]) -> None:
        fenced = [found.id for found in await connection.execute(whom)]
        if fenced:
            change = update(tables.workers).where(_workers.id.in_(fenced)).values(state="fenced")
            await connection.execute(change)
            await _withdraw(connection, fenced)

    async def _shorten_leases(self, connection: AsyncConnection) -> None:
        """A clock that was put back must not let the dead live on."""
        longest = now(connection) + self._lease * LONGEST_LEASE
        too_long = and_(_workers.expires > longest, _workers.expires < _FINITE)
        change = update(tables.workers).where(_workers.state == "live", too_long)
        await connection.execute(change.values(expires=longest))

    async def _take(
        self, connection: AsyncConnection, room: int, suspects: dict[str, RunId | None]
    ) -> list[StoredRun]:
        orphaned = await _choose(connection, _runs.worker.in_(suspects), room) if suspects else {}
        unowned = await _choose(connection, _runs.worker.is_(None), room - len(orphaned))
        owners = orphaned | unowned
        change = update(tables.runs).values(worker=self.id, epoch=_runs.epoch + 1)
        for some in unfinished.slices(list(owners)):
            await connection.execute(change.where(_runs.id.in_(some)))
        stored = await unfinished.load(connection, list(owners))
        for item in stored:
            owner = owners[item.row.id]
            item.crashed = owner is not None
            item.suspect = owner is not None and suspects[owner] == item.row.id
        return stored

    async def _renew(self, connection: AsyncConnection) -> News:
        time = now(connection)
        expires = time + self._lease if self._shared else math.inf
        news = self._dead(time), _unowned(), _requests(self.id), *_signals(self.id)
        prolong = self._change_mine().values(expires=expires)
        found = await _change_and_read(connection, prolong, news)
        if found is None:
            raise self._fenced()
        seen = (found.signals, found.moments)
        changed, self._seen = seen != self._seen, seen
        return News(bool(found.unowned), bool(found.dead), bool(found.requests), changed)

    def _dead(self, time: ColumnElement[float]) -> ColumnElement[bool]:
        """Of the workers that are not fenced yet one should be, or others have left runs behind."""
        lapsed = or_(
            _other.expires < time, _other.expires.between(time + self._lease * LONGEST_LEASE, _FINITE)
        )
        left = exists().where(_runs.worker == _other.id, _runs.finished.is_(None))
        living = and_(_other.state == "live", _other.id != self.id, lapsed)
        return exists().where(or_(living, and_(_other.state != "live", left))).label("dead")

    def _others(self) -> Select[Any]:
        return select(_workers.id).where(_workers.state == "live", _workers.id != self.id)

    def _change_mine(self) -> Update:
        return update(tables.workers).where(_workers.id == self.id, _workers.state == "live")

    def _fenced(self) -> Fenced:
        return Fenced(f"worker {self.id} is held for dead: others have its runs")


async def _change_and_read(
    connection: AsyncConnection, change: Update, columns: Sequence[ColumnElement[Any]]
) -> Row[Any] | None:
    """None if nothing was changed.  SQLAlchemy cannot say one with the other in the words of SQLite."""
    if connection.dialect.name == "postgresql":
        return (await connection.execute(change.returning(*columns))).first()
    changed = await connection.execute(change)
    return (await connection.execute(select(*columns))).one() if changed.rowcount else None


def _unowned() -> ColumnElement[bool]:
    return exists().where(_runs.worker.is_(None), _runs.finished.is_(None)).label("unowned")


def _requests(worker: str) -> ColumnElement[bool]:
    asked = tables.inbox.c
    return (
        exists().where(asked.reply.is_(None), _runs.id == asked.run, _runs.worker == worker).label("requests")
    )


def _signals(worker: str) -> tuple[ColumnElement[int], ColumnElement[float]]:
    """How many of its signals no step has taken, and the sum of their times: two sets differ in these."""
    sent = tables.signals.c
    mine = and_(sent.step.is_(None), _runs.id == sent.run, _runs.worker == worker, _runs.finished.is_(None))
    return (
        select(func.count())
        .select_from(tables.signals, tables.runs)
        .where(mine)
        .scalar_subquery()
        .label("signals"),
        select(func.coalesce(func.sum(sent.at), 0.0)).where(mine).scalar_subquery().label("moments"),
    )


async def _suspects(connection: AsyncConnection) -> dict[str, RunId | None]:
    """The dead workers, each with the run that it carried out alone."""
    dead = select(_workers.id, _workers.suspect).where(_workers.state != "live")
    return {found.id: found.suspect for found in await connection.execute(dead)}


async def _choose(
    connection: AsyncConnection, where: ColumnElement[bool], room: int
) -> dict[RunId, str | None]:
    """The first runs, locked, and whose they were.  Those that another worker takes are passed over.

    Those that have begun go first: they hold their locks, and others must not get them meanwhile.
    """
    query = (
        select(_runs.id, _runs.worker)
        .where(where, _runs.finished.is_(None))
        .order_by(_runs.started.is_(None), _runs.priority, _runs.id)
        .limit(max(0, room))
        .with_for_update(skip_locked=True, key_share=True)
    )
    return {RunId(found.id): found.worker for found in await connection.execute(query)}


async def _withdraw(connection: AsyncConnection, workers: Sequence[str]) -> None:
    """Their steps count no more.  What their runs hold stays with the runs; what they only wait for does not,
    or it could be granted to a run that nobody carries out."""
    await connection.execute(delete(tables.permits).where(tables.permits.c.worker.in_(workers)))
    theirs = select(_runs.id).where(_runs.worker.in_(workers), _runs.finished.is_(None))
    waiting = and_(tables.locks.c.held.is_(False), tables.locks.c.run.in_(theirs))
    await connection.execute(delete(tables.locks).where(waiting))


async def _release_orphans(connection: AsyncConnection) -> None:
    """Runs of workers that nobody knows, as in a database that was restored in parts."""
    known = exists().where(_workers.id == _runs.worker)
    orphaned = update(tables.runs).where(_runs.finished.is_(None), _runs.worker.is_not(None), ~known)
    await connection.execute(orphaned.values(worker=None))


async def _forget_the_dead(connection: AsyncConnection) -> None:
    has_runs = exists().where(_runs.worker == _workers.id, _runs.finished.is_(None))
    await connection.execute(delete(tables.workers).where(_workers.state != "live", ~has_runs))

"""The lines of runs before each key, in the tables: who holds it, and who waits for it in which order.

On every key holders come first, then those that wait, by priority, then age.  A run is granted once its place
in each of its lines is within the capacity of that key: all at one instant or none.  As all lines have the
same order, nobody waits in a circle and nobody overtakes.

Everything here is called inside one transaction that has the gate's turn (`shared.Turn.GATE`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from msgspec import Struct
from sqlalchemy import Row, Select, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.runs import Claim
from skep.flow.steps import RunId
from skep.flow.storage import tables
from skep.flow.storage.shared import insert_new
from skep.flow.storage.unfinished import slices

_locks, _runs = tables.locks.c, tables.runs.c


class Line(Struct, frozen=True):
    """The head of a line: who has the key, and who waits and is within its capacity."""

    holders: tuple[RunId, ...] = ()
    next: tuple[RunId, ...] = ()


async def join(connection: AsyncConnection, wishes: Mapping[RunId, tuple[Sequence[Claim], int]]) -> None:
    """Stand in line, each run with its claims and priority.  Who stands there already keeps its place."""
    unfinished: set[str] = set()
    for some in slices(list(wishes)):
        living = select(_runs.id).where(_runs.id.in_(some), _runs.finished.is_(None))
        unfinished.update((await connection.execute(living)).scalars())
    rows = [
        {"key": claim.key, "run": run, "capacity": claim.capacity, "priority": priority, "held": False}
        for run, (claims, priority) in wishes.items()
        if run in unfinished
        for claim in claims
    ]
    if rows:
        await connection.execute(insert_new(connection, tables.locks), rows)


async def leave(connection: AsyncConnection, runs: Sequence[RunId], worker: str) -> set[str]:
    """Go out of every line; answers the keys.  A run that has not ended keeps what it holds, and those that
    belong to another worker by now stay as they are."""
    keys: set[str] = set()
    for some in slices(runs):
        mine = and_(_runs.worker == worker, _locks.held.is_(False))
        query = select(_locks.key, _locks.run).join(tables.runs, _runs.id == _locks.run)
        query = query.where(_locks.run.in_(some), or_(_runs.finished.is_not(None), mine))
        found = (await connection.execute(query)).all()
        keys.update(row.key for row in found)
        await _remove(connection, {row.run for row in found})
    return keys


async def grant(connection: AsyncConnection, keys: Collection[str]) -> tuple[set[RunId], dict[str, Line]]:
    """Let those have their keys that are first in line for one of these and for all their others.

    Answers who got them, and the lines before these keys as they are then.
    """
    heads = await _heads(connection, keys)
    candidates = {row.run for row in chain(*heads.values()) if not row.held}
    if not candidates:
        return set(), {key: _line(rows, set()) for key, rows in heads.items()}
    claims = await _claims(connection, candidates)
    further = await _heads(connection, {key for found in claims.values() for key in found} - set(keys))
    within = {(row.run, row.key) for row in chain(*heads.values(), *further.values())}
    granted = {run for run, found in claims.items() if all((run, key) in within for key in found)}
    for some in slices(list(granted)):
        await connection.execute(update(tables.locks).where(_locks.run.in_(some)).values(held=True))
    return granted, {key: _line(rows, granted) for key, rows in heads.items()}


async def standing(connection: AsyncConnection, runs: Collection[RunId]) -> dict[RunId, bool]:
    """Those of the runs that stand in any line, and whether they hold their keys."""
    found: dict[RunId, bool] = {}
    for some in slices(list(runs)):
        query = select(_locks.run, _locks.held).where(_locks.run.in_(some)).distinct()
        found |= {RunId(row.run): row.held for row in await connection.execute(query)}
    return found


async def _heads(connection: AsyncConnection, keys: Collection[str]) -> dict[str, list[Row[Any]]]:
    """Of each line the part within capacity; runs that have ended are put out first, whoever forgot it."""
    heads: dict[str, list[Row[Any]]] = {}
    for some in slices(sorted(keys)):
        while True:
            rows = (await connection.execute(_head_of(some))).all()
            ended = {row.run for row in rows if row.finished is not None}
            if not ended:
                break
            await _remove(connection, ended)
        heads |= {key: [] for key in some}
        for row in rows:
            heads[row.key].append(row)
    return heads


def _head_of(keys: Sequence[str]) -> Select[Any]:
    """A key that some claim alone is not shared by who comes behind with a claim to share it."""
    order = (_locks.held.desc(), _locks.priority, _locks.run)
    lines = (
        select(
            _locks.key,
            _locks.run,
            _locks.held,
            func.row_number().over(partition_by=_locks.key, order_by=order).label("place"),
            func.min(_locks.capacity).over(partition_by=_locks.key, order_by=order).label("room"),
        )
        .where(_locks.key.in_(keys))
        .subquery()
    ).c
    query = select(lines.key, lines.run, lines.held, _runs.finished).join(tables.runs, _runs.id == lines.run)
    return query.where(lines.place <= lines.room).order_by(lines.key, lines.place)


async def _claims(connection: AsyncConnection, runs: Collection[RunId]) -> dict[RunId, list[str]]:
    claims: dict[RunId, list[str]] = defaultdict(list)
    for some in slices(list(runs)):
        query = select(_locks.run, _locks.key).where(_locks.run.in_(some))
        for row in await connection.execute(query):
            claims[RunId(row.run)].append(row.key)
    return claims


async def _remove(connection: AsyncConnection, runs: Collection[RunId]) -> None:
    for some in slices(list(runs)):
        await connection.execute(delete(tables.locks).where(_locks.run.in_(some)))


def _line(rows: Iterable[Row[Any]], granted: Collection[RunId]) -> Line:
    holders = tuple(row.run for row in rows if row.held or row.run in granted)
    return Line(holders, tuple(row.run for row in rows if row.run not in holders))

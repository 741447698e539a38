"""Reading rows into frozen structs: the one way all resource files share."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

R = TypeVar("R", bound="Row")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records of this room; field names are column names."""


def columns(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


@cache
def _reader(kind: type[R], found: tuple[str, ...]) -> Callable[[Sequence[Any]], R]:
    """Of rows with these columns: thousands are read again and again, and places are looked up once."""
    fields = kind.__struct_fields__
    places = [found.index(name) for name in fields]
    return lambda row: kind(**{name: row[place] for name, place in zip(fields, places, strict=True)})


async def one(connection: AsyncConnection, query: sa.Select[Any], kind: type[R]) -> R | None:
    result = await connection.execute(query)
    read, row = _reader(kind, tuple(result.keys())), result.first()
    return None if row is None else read(row)


async def many(connection: AsyncConnection, query: sa.Select[Any], kind: type[R]) -> list[R]:
    result = await connection.execute(query)
    read = _reader(kind, tuple(result.keys()))
    return [read(row) for row in result]


async def insert(connection: AsyncConnection, table: sa.Table, rows: Iterable[Row]) -> None:
    values = [columns(row) for row in rows]
    if values:
        await connection.execute(sa.insert(table), values)


async def delete(connection: AsyncConnection, table: sa.Table, ids: Iterable[str]) -> None:
    """Delete by id; a thousand at a time, since databases bound the number of parameters."""
    pending = list(ids)
    for start in range(0, len(pending), 1000):
        await connection.execute(sa.delete(table).where(table.c.id.in_(pending[start : start + 1000])))

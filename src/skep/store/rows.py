"""Reading rows into frozen structs: the one way all resource files share."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

R = TypeVar("R", bound="Row")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records of this room; field names are column names."""


def columns(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def _record(kind: type[R], mapping: Mapping[str, Any]) -> R:
    return kind(**{name: mapping[name] for name in kind.__struct_fields__})


async def one(connection: AsyncConnection, query: sa.Select[Any], kind: type[R]) -> R | None:
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else _record(kind, dict(row))


async def many(connection: AsyncConnection, query: sa.Select[Any], kind: type[R]) -> list[R]:
    return [_record(kind, dict(row)) for row in (await connection.execute(query)).mappings()]


async def insert(connection: AsyncConnection, table: sa.Table, rows: Iterable[Row]) -> None:
    values = [columns(row) for row in rows]
    if values:
        await connection.execute(sa.insert(table), values)


async def delete(connection: AsyncConnection, table: sa.Table, ids: Iterable[str]) -> None:
    """Delete by id; a thousand at a time, since databases bound the number of parameters."""
    pending = list(ids)
    for start in range(0, len(pending), 1000):
        await connection.execute(sa.delete(table).where(table.c.id.in_(pending[start : start + 1000])))

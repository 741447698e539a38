"""Leases by name: who has one may do what only one process at a time may.  Times are the database's own."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.storage.shared import now
from skep.store.tables import leases


async def take(connection: AsyncConnection, name: str, holder: str, seconds: float) -> int | None:
    """Take the lease or prolong one's own; None: somebody else has it.

    Answers its epoch, which grows whenever it changes hands: what was said with an older one is out of date.
    """
    time = now(connection)
    mine = leases.c.holder == holder
    row = (
        await connection.execute(
            sa.update(leases)
            .where(leases.c.name == name, sa.or_(mine, leases.c.expires < time))
            .values(
                holder=holder,
                epoch=sa.case((mine, leases.c.epoch), else_=leases.c.epoch + 1),
                expires=time + seconds,
            )
            .returning(leases.c.epoch)
        )
    ).first()
    if row is not None:
        return int(row.epoch)
    there = sa.select(leases.c.name).where(leases.c.name == name)
    if (await connection.execute(there)).first() is not None:
        return None
    await connection.execute(
        sa.insert(leases).values(name=name, holder=holder, epoch=1, expires=time + seconds)
    )
    return 1


async def give_back(connection: AsyncConnection, name: str, holder: str) -> None:
    """The next one need not wait; somebody else's is left alone."""
    await connection.execute(
        sa.update(leases).where(leases.c.name == name, leases.c.holder == holder).values(expires=0.0)
    )

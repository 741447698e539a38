"""How many releases of an app are kept to go back to, and with them what they are made of.

A release that is kept keeps its images, the contents of its configs and secrets, and snapshots of its data;
what no release needs any more goes with the next `image prune`.
"""

from collections.abc import Collection, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.ids import AppId, ReleaseId
from skep.store import releases, replicas, snapshots
from skep.store.releases import ReleaseRow

AUTOSCALER = "(autoscaler)"
"""Who made releases that nobody made; no name of a user has parentheses."""
IN_FORCE = ("current", "superseded")


async def forget_old(connection: AsyncConnection, app: AppId, keep: int) -> None:
    """Keep the last `keep` releases that were in force, and as many that failed.

    Of those by which services scaled themselves the last one is kept.
    """
    history = await releases.of_app(connection, app)
    used = {row.release_id for row in await replicas.containers_of(connection, app)}
    gone = obsolete(history, used, keep)
    await snapshots.delete_of(connection, gone)
    await releases.delete(connection, gone)


def obsolete(history: Sequence[ReleaseRow], used: Collection[ReleaseId], keep: int) -> list[ReleaseId]:
    """Which go, of a history whose newest comes first; not those that containers were made of."""
    by_hand = [row for row in history if row.state in IN_FORCE and row.created_by != AUTOSCALER]
    failed = [row for row in history if row.state == "failed"]
    automatic = [row for row in history if row.state in IN_FORCE and row.created_by == AUTOSCALER]
    old = [*by_hand[max(keep, 1) :], *failed[keep:], *automatic[1:]]
    return [row.id for row in old if row.id not in used and row.state != "current"]

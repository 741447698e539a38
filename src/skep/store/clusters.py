"""Kubernetes clusters that zones stand on: how they are reached, sealed."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.model.clusters import ClusterOffers
from skep.model.ids import ClusterId, HostName, ZoneName
from skep.store import rows
from skep.store.tables import clusters


class ClusterRow(rows.Row, frozen=True, kw_only=True):
    """`id` is what everything of ours in the cluster is labelled with; `host` is how control sees it.

    `sealed_login`: of the registry, empty where none is needed.  `lacks`: what apps may need and do not have
    there (`model.needs`); `ranges`: of the addresses that they may ask for.  `generation` grows with every
    change of how it is reached.
    """

    id: ClusterId
    zone: ZoneName
    host: HostName
    server: str
    context: str = ""
    sealed_kubeconfig: bytes
    registry: str
    sealed_login: bytes = b""
    lacks: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    generation: int = 1
    created: float


async def every(connection: AsyncConnection) -> list[ClusterRow]:
    return await rows.many(connection, sa.select(clusters).order_by(clusters.c.zone), ClusterRow)


async def of_zone(connection: AsyncConnection, zone: ZoneName) -> ClusterRow | None:
    return await rows.one(connection, sa.select(clusters).where(clusters.c.zone == zone), ClusterRow)


async def insert(connection: AsyncConnection, row: ClusterRow) -> None:
    await rows.insert(connection, clusters, [row])


async def set_offers(connection: AsyncConnection, cluster: ClusterId, offers: ClusterOffers) -> None:
    """Whoever leads it enters it anew."""
    changed = {
        "lacks": tuple(sorted(offers.lacks)),
        "ranges": offers.ranges,
        "generation": clusters.c.generation + 1,
    }
    await connection.execute(sa.update(clusters).where(clusters.c.id == cluster).values(**changed))


async def save(connection: AsyncConnection, row: ClusterRow) -> None:
    await connection.execute(sa.update(clusters).where(clusters.c.id == row.id).values(**rows.columns(row)))


async def delete(connection: AsyncConnection, cluster: ClusterId) -> None:
    await rows.delete(connection, clusters, [cluster])

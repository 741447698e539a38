"""Whether an app is in a cluster."""

from collections.abc import Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.plans import homes
from skep.model.ids import HostName, ZoneName
from skep.store import hosts, releases
from skep.store.apps import AppRow
from skep.store.replicas import ReplicaRow


async def in_cluster(
    connection: AsyncConnection,
    app: AppRow,
    members: Collection[ReplicaRow],
    clusters: Mapping[HostName, ZoneName],
) -> bool:
    """Whether all its replicas are there; while it has none, whether the first one comes there.

    `clusters`: those that there are, with their zones.
    """
    if members or not clusters:
        return bool(members) and all(one.host in clusters for one in members)
    release = await releases.get(connection, app.release_id) if app.release_id else None
    zones = {host.zone for host in await hosts.every(connection)}
    return release is not None and homes.begins_in_cluster(release.spec, zones, clusters.values())

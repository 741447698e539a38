"""Before an installation is forgotten: what it has in clusters is deleted there."""

import sys
from contextlib import AsyncExitStack
from typing import Protocol

from skep.configuration import Configuration
from skep.control.hosts.cluster_zones import open_access
from skep.main.database import open_database
from skep.model.clusters import ClusterAccess
from skep.model.errors import SkepError
from skep.store import clusters
from skep.store.clusters import ClusterRow


class Leaver(Protocol):
    """What of control's `Clusters` is needed."""

    async def leave(self, cluster: ClusterAccess) -> None: ...


async def leave_clusters(settings: Configuration, known: Leaver) -> None:
    """A cluster that cannot be left is named, with what takes away the rest.

    Where the database is elsewhere this is one machine of several, and the clusters are those of all.
    """
    if settings.database or not (settings.data / "skep.db").exists():
        return
    try:
        rows = await _rows(settings)
    except SkepError as error:
        print(f"Clusters are not known any more: {error.message}", file=sys.stderr)
        return
    for row in rows:
        try:
            await known.leave(open_access(settings.seal, row))
        except SkepError as error:
            made = f"namespaces,priorityclasses --selector skep.dev/installation={row.id}"
            print(
                f"Cluster {row.server} of zone {row.zone} is left with what is there: {error.message} Delete "
                f"that with: kubectl delete {made}",
                file=sys.stderr,
            )


async def _rows(settings: Configuration) -> list[ClusterRow]:
    async with AsyncExitStack() as stack:
        database = await open_database(stack, settings)
        async with database.read() as connection:
            return await clusters.every(connection)

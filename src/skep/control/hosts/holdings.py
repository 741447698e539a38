"""What a host has to do with: the containers and ports of the replicas that are on it, and their files."""

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.ports import Desired
from skep.flow import Database
from skep.model.ids import ContainerId, HostName, PortId
from skep.store import apps, networks, replicas


class Holdings:
    """Read from the store, so that hosts are believed about these and nothing else."""

    def __init__(self, database: Database, desired: Desired) -> None:
        self._database = database
        self._desired = desired

    async def has_port(self, host: HostName, port: PortId) -> bool:
        async with self._database.read() as connection:
            row = await networks.port(connection, port)
            replica = await replicas.get(connection, row.replica_id) if row is not None else None
        return replica is not None and replica.host == host

    async def has_container(self, host: HostName, container: ContainerId) -> bool:
        """Also one that is no replica's any more: nothing is recorded of it."""
        async with self._database.read() as connection:
            replica = await replicas.by_container(connection, container)
        return replica is None or replica.host == host

    async def has_file(self, host: HostName, digest: str) -> bool:
        """Whether a container of a replica on the host, old or new, has the config or secret in it."""
        async with self._database.read() as connection:
            candidates = await _of_owners(connection, host, digest)
        for container in candidates:
            spec = await self._desired.container(container)
            if any(file.digest == digest for file in spec.files):
                return True
        return False


async def _of_owners(connection: AsyncConnection, host: HostName, digest: str) -> list[ContainerId]:
    """Containers on the host, of tenants who have given us the file."""
    owners = await apps.owners(connection, digest)
    here = [row for row in await replicas.on_host(connection, host) if row.tenant_id in owners]
    return [row.id for row in await replicas.containers_on(connection, [row.id for row in here])]

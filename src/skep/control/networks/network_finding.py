"""Looking up a network that the caller's tenant owns."""

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.model.errors import NotFound
from skep.store import networks
from skep.store.networks import NetworkRow


async def own_network(connection: AsyncConnection, caller: Caller, name: str) -> NetworkRow:
    """Raises NotFound: there is none; one that another tenant shares is not owned."""
    row = next((one for one in await networks.every(connection, caller.tenant) if one.name == name), None)
    if row is None:
        raise NotFound(f"There is no network {name!r} of yours; see 'skep net ls'.")
    return row

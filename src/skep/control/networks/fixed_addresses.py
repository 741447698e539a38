"""Addresses in clusters, each given once: a cluster's pools are everybody's, whatever subnets tenants have.

Runs inside the transaction of `release.claim`, as the addresses of networks do.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.plans.fixed_addresses import of_service, texts
from skep.control.plans.plans import Plan, ReplicaChange
from skep.model.errors import Conflict
from skep.model.ids import TenantId
from skep.store import fixed_addresses
from skep.store.fixed_addresses import FixedAddressRow
from skep.store.releases import ReleaseRow

_GETS_A_CONTAINER = ("create", "update", "stand-in")


async def claim(tx: AsyncConnection, plan: Plan, release: ReleaseRow) -> None:
    """Those that replicas of the plan ask for, if it is one in a cluster.

    Raises:
        Conflict: another replica has one of them.  Whose it is, is nobody's business.
    """
    if not plan.in_cluster:
        return
    for change in plan.replicas:
        if change.action in _GETS_A_CONTAINER:
            fixed = of_service(release.spec.services[change.service])
            if fixed is not None:
                await _claim(tx, release.tenant_id, change, texts(fixed))


async def _claim(
    tx: AsyncConnection, tenant: TenantId, change: ReplicaChange, wanted: tuple[str, ...]
) -> None:
    given = {row.address: row.replica_id for row in await fixed_addresses.on(tx, change.host, wanted)}
    for address in wanted:
        if given.get(address, change.replica) != change.replica:
            raise Conflict(
                f"{change.name}: address {address} is in use in {change.host}: ask for another one."
            )
    new = [
        FixedAddressRow(host=change.host, address=address, tenant_id=tenant, replica_id=change.replica)
        for address in wanted
        if address not in given
    ]
    await fixed_addresses.insert(tx, new)

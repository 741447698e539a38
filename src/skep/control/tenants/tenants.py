"""Tenants: made and removed by admins."""

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller, Role
from skep.control.clock import Now, rfc3339
from skep.flow import Database
from skep.model.errors import Conflict, NotFound
from skep.model.ids import TenantId, new_id
from skep.model.names import TenantName, check_name
from skep.model.views.tenants import Quota, TenantView
from skep.store import acme, apps, disks, egress, endpoints, networks, shares, tenants, users
from skep.store.tables import files, images
from skep.store.tenants import TenantRow


class Tenants:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    async def create(self, caller: Caller, name: str, quota: Quota | None = None) -> TenantView:
        """Raises Conflict: the name is taken."""
        caller.must_operate()
        row = TenantRow(
            id=TenantId(new_id()),
            name=TenantName(check_name(name, "tenant")),
            quota=quota or Quota(),
            created=self._now(),
        )
        try:
            await self._database.write(lambda connection: tenants.insert(connection, row))
        except IntegrityError as error:
            raise Conflict(f"There is a tenant {name!r} already.") from error
        return _view(row)

    async def remove(self, caller: Caller, name: str) -> None:
        """Remove a tenant that owns nothing any more, with its users and image references.

        Raises:
            Conflict: it has apps or disks, or admins, who would be gone with it.
        """
        caller.must_operate()

        async def change(connection: AsyncConnection) -> None:
            row = await tenants.by_name(connection, name)
            if row is None:
                raise NotFound(f"There is no tenant {name!r}; see 'skep tenant ls'.")
            owned = [str(app.name) for app in await apps.every(connection, row.id)]
            owned += [disk.name for disk in await disks.every(connection, row.id)]
            if owned:
                raise Conflict(f"Tenant {name!r} still owns {', '.join(owned[:10])}: remove them first.")
            people = await users.every(connection, row.id)
            admins = [user.name for user in people if user.role == Role.ADMIN.value]
            if admins:
                raise Conflict(f"Tenant {name!r} is the home of admins: {', '.join(admins[:10])}.")
            for user in people:
                await users.delete(connection, user.id)
            own = [net.id for net in await networks.every(connection, row.id)]
            guests = sorted(set((await networks.guests(connection, own)).values()))
            if guests:
                raise Conflict(f"Replicas of {', '.join(guests[:10])} are plugged into networks of {name!r}.")
            await shares.delete_of_guest(connection, row.id, row.name)
            await egress.delete_of_tenant(connection, row.id)
            await networks.delete(connection, own)
            await acme.delete(connection, [order.id for order in await acme.orders(connection, row.id)])
            for certificate in await endpoints.certificates(connection, row.id):
                await endpoints.delete_certificate(connection, certificate.id)
            await connection.execute(sa.delete(files).where(files.c.tenant_id == row.id))
            await connection.execute(sa.delete(images).where(images.c.tenant_id == row.id))
            await tenants.delete(connection, row.id)

        await self._database.write(change)

    async def list(self, caller: Caller) -> list[TenantView]:
        caller.must_operate()
        async with self._database.read() as connection:
            return [_view(row) for row in await tenants.every(connection)]


def _view(row: TenantRow) -> TenantView:
    return TenantView(id=row.id, name=row.name, created=rfc3339(row.created), quota=row.quota)

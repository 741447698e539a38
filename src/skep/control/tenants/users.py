"""Users: who acts.  Made by admins; each belongs to one tenant and has one role in it."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller, Role
from skep.control.clock import Now, rfc3339
from skep.flow import Database
from skep.model.errors import Conflict, NotFound
from skep.model.ids import UserId, new_id
from skep.model.names import check_name
from skep.model.views.tenants import UserView, WhoAmI
from skep.store import tenants, users
from skep.store.users import UserRow


class Users:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    async def create(self, caller: Caller, name: str, tenant: str, role: Role) -> UserView:
        """Raises Conflict: the name is taken.  NotFound: there is no such tenant."""
        caller.must_operate()
        check_name(name, "user")
        async with self._database.read() as connection:
            owner = await tenants.by_name(connection, tenant)
        if owner is None:
            raise NotFound(f"There is no tenant {tenant!r}; see 'skep tenant ls'.")
        row = UserRow(
            id=UserId(new_id()), tenant_id=owner.id, name=name, role=role.value, created=self._now()
        )
        try:
            await self._database.write(lambda connection: users.insert(connection, row))
        except IntegrityError as error:
            raise Conflict(f"There is a user {name!r} already.") from error
        return _view(row, owner.name)

    async def remove(self, caller: Caller, name: str) -> None:
        """Remove a user and every token of theirs.  Raises Conflict: that is yourself."""
        caller.must_operate()
        if name == caller.user_name:
            raise Conflict("You cannot remove yourself: let another admin do it.")

        async def change(connection: AsyncConnection) -> None:
            row = await users.by_name(connection, name)
            if row is None:
                raise NotFound(f"There is no user {name!r}; see 'skep user ls'.")
            await users.delete(connection, row.id)

        await self._database.write(change)

    async def whoami(self, caller: Caller) -> WhoAmI:
        return WhoAmI(user=caller.user_name, role=caller.role.value, tenant=caller.tenant_name)

    async def list(self, caller: Caller) -> list[UserView]:
        """Admins see everybody; others see the users of their tenant."""
        async with self._database.read() as connection:
            rows = await users.every(connection, None if caller.role is Role.ADMIN else caller.tenant)
            names = {row.id: row.name for row in await tenants.every(connection)}
        return [_view(row, names[row.tenant_id]) for row in rows]


def _view(row: UserRow, tenant: str) -> UserView:
    return UserView(id=row.id, name=row.name, tenant=tenant, role=row.role, created=rfc3339(row.created))

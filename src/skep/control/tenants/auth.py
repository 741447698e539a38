"""Who is asking: from a bearer token to a Caller."""

from skep.control.callers import Caller, Role
from skep.control.clock import Now
from skep.control.tenants.tokens import hash_secret
from skep.flow import Database
from skep.flow.storage.effects import harmless
from skep.model.errors import Forbidden, NotFound, Unauthenticated
from skep.store import tenants, users
from skep.store.users import TokenRow

TOUCH_EVERY = 60.0
"""Seconds between two records of a token's use: reading must not become writing."""


class Auth:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    async def authenticate(self, secret: str, tenant: str | None = None) -> Caller:
        """The caller behind a token.  `tenant` names the one an admin wants to act in.

        Raises:
            Unauthenticated: unknown or expired; it does not say which.
            Forbidden: the tenant is not the user's own, and they are no admin.
        """
        async with self._database.read() as connection:
            token = await users.token_by_hash(connection, hash_secret(secret))
            if token is None or (token.expires is not None and token.expires <= self._now()):
                raise Unauthenticated("The token is not valid (any more): log in with 'skep login'.")
            user = await users.get(connection, token.user_id)
            if user is None:
                raise Unauthenticated("The token is not valid (any more): log in with 'skep login'.")
            own = await tenants.get(connection, user.tenant_id)
            acting = own if tenant is None else await tenants.by_name(connection, tenant)
        role = Role(user.role)
        if acting is not own and acting != own and role is not Role.ADMIN:
            raise Forbidden(f"User {user.name!r} may not act in tenant {tenant!r}.")
        if acting is None:
            raise NotFound(f"There is no tenant {tenant!r}; see 'skep tenant ls'.")
        await self._touch(token)
        return Caller(user=user.id, user_name=user.name, role=role, tenant=acting.id, tenant_name=acting.name)

    async def _touch(self, token: TokenRow) -> None:
        now = self._now()
        if token.last_used is None or now - token.last_used > TOUCH_EVERY:
            with harmless():
                await self._database.write(lambda connection: users.touch_token(connection, token.id, now))

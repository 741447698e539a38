"""Tokens: how a user proves who they are.

A token is `skep_` and 43 characters of randomness (256 bits), so a plain SHA-256 keeps it: there is nothing
to guess.  Only the hash is stored, and the secret is shown once.
"""

import hashlib
import secrets

from skep.control.callers import Caller, Role
from skep.control.clock import Now, rfc3339
from skep.flow import Database
from skep.model.errors import Forbidden, InvalidInput, NotFound
from skep.model.ids import TokenId, new_id
from skep.model.views.tenants import TokenCreated, TokenView
from skep.store import users
from skep.store.users import TokenRow, UserRow

PREFIX = "skep_"


class Tokens:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    async def create(
        self, caller: Caller, name: str, *, user: str | None = None, expires_in: float | None = None
    ) -> TokenCreated:
        """A token for oneself; admins make them for others too.  `expires_in` is in seconds."""
        if expires_in is not None and expires_in <= 0:
            raise InvalidInput("A token must live for more than 0 seconds.")
        owner = await self._owner(caller, user)
        secret = new_secret()
        now = self._now()
        row = TokenRow(
            id=TokenId(new_id()),
            tenant_id=owner.tenant_id,
            user_id=owner.id,
            name=name[:100],
            hash=hash_secret(secret),
            created=now,
            expires=None if expires_in is None else now + expires_in,
            last_used=None,
        )
        await self._database.write(lambda connection: users.insert_token(connection, row))
        return TokenCreated(token=_view(row, owner.name), secret=secret)

    async def revoke(self, caller: Caller, token: str) -> None:
        visible = await self.list(caller)
        if token not in {view.id for view in visible}:
            raise NotFound(f"There is no token {token!r}; see 'skep token ls'.")
        await self._database.write(lambda connection: users.delete_token(connection, TokenId(token)))

    async def list(self, caller: Caller) -> list[TokenView]:
        """One's own; admins see everybody's."""
        async with self._database.read() as connection:
            rows = await users.tokens_of(connection, None if caller.role is Role.ADMIN else caller.user)
            names = {row.id: row.name for row in await users.every(connection)}
        return [_view(row, names[row.user_id]) for row in rows]

    async def _owner(self, caller: Caller, user: str | None) -> UserRow:
        if user not in (None, caller.user_name) and caller.role is not Role.ADMIN:
            raise Forbidden("Only admins make tokens for others.")
        async with self._database.read() as connection:
            row = await users.by_name(connection, user or caller.user_name)
        if row is None:
            raise NotFound(f"There is no user {user!r}; see 'skep user ls'.")
        return row


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _view(row: TokenRow, user: str) -> TokenView:
    return TokenView(
        id=row.id,
        name=row.name,
        user=user,
        created=rfc3339(row.created),
        expires=rfc3339(row.expires),
        last_used=rfc3339(row.last_used),
    )

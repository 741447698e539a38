"""Join tokens: what an operator gives a new host, and what it is good for.

A token is `skepjoin_` and 256 random bits, of which only the SHA-256 is stored.  It joins one host, within an
hour unless it is said otherwise.  `enrolment` takes it.
"""

import hashlib
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.hosts.authorities import Authorities
from skep.control.hosts.bus_accounts import BusAccounts
from skep.control.settings import Settings
from skep.flow import Database
from skep.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from skep.model.ids import HostName, Seconds, ZoneName
from skep.model.names import check_name
from skep.model.views.joining import JoinTokenCreated, JoinTokenView
from skep.store import hosts, join_tokens
from skep.store.join_tokens import JoinTokenRow

log = structlog.get_logger(__name__)

PREFIX = "skepjoin_"
LIFETIME = Seconds(3_600.0)
LONGEST = Seconds(7 * 86_400.0)
_KEPT = 30 * 86_400.0
"""Seconds for which a token whose time is over stays in the list."""


class JoinTokens:
    def __init__(
        self,
        database: Database,
        authorities: Authorities,
        accounts: BusAccounts,
        settings: Settings,
        now: Now,
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._authorities = authorities
        self._accounts = accounts
        self._settings = settings
        self._now = now
        self._new_id = new_id

    async def create(
        self,
        caller: Caller,
        zone: str,
        *,
        host: str | None = None,
        pool: str | None = None,
        expires_in: float = LIFETIME,
        again: bool = False,
    ) -> JoinTokenCreated:
        """A token for one host.  `expires_in` is in seconds.

        `again`: for a host that is there and has lost what it proves itself with; it stays what it is.

        Raises:
            Unavailable: hosts cannot join as the installation is set up; says what is missing.
            NotFound: there is no such zone.
            Conflict: the host is there.
        """
        caller.must_operate()
        if not 0 < expires_in <= LONGEST:
            raise InvalidInput("A join token lives for more than 0 seconds and for a week at most.")
        self._must_be_reachable()
        await self._accounts.check()
        await self._must_be_there(zone, pool)
        await (self._must_be_known(zone, host) if again else self._must_be_free(host))
        authority = await self._authorities.show()
        secret, now = PREFIX + secrets.token_urlsafe(32), self._now()
        row = JoinTokenRow(
            id=self._new_id(),
            hash=hash_token(secret),
            host=HostName(host) if host else None,
            zone=ZoneName(zone),
            pool=pool,
            created=now,
            created_by=caller.user_name,
            expires=now + expires_in,
        )
        await self._database.write(lambda connection: join_tokens.insert(connection, row))
        given = {"host": host, "zone": zone, "pool": pool, "again": again}
        log.info("join-token.created", token=row.id, by=caller.user_name, **given)
        return JoinTokenCreated(
            token=self._view(row),
            secret=secret,
            url=self._settings.api_url,
            authority=authority.fingerprint,
            system_ca=self._settings.operators_tls,
        )

    async def list(self, caller: Caller) -> list[JoinTokenView]:
        caller.must_operate()
        async with self._database.read() as connection:
            rows = await join_tokens.every(connection)
        return [self._view(row) for row in rows if row.expires > self._now() - _KEPT]

    async def revoke(self, caller: Caller, token: str) -> None:
        """Nobody joins with it any more; a host that has joined stays (`skep host rm` removes it).

        Raises:
            NotFound: there is no such token.
        """
        caller.must_operate()
        async with self._database.read() as connection:
            if token not in {row.id for row in await join_tokens.every(connection)}:
                raise NotFound(f"There is no join token {token!r}; see 'skep host tokens'.")
        await self._database.write(lambda connection: join_tokens.delete(connection, token))
        log.info("join-token.revoked", token=token, by=caller.user_name)

    def _must_be_reachable(self) -> None:
        if not self._settings.bus_url:
            raise Unavailable(
                "Hosts cannot join: this installation has no bus. Set 'bus' and 'database' in skep.yaml "
                "first (docs/how-to/add-a-host.md)."
            )
        if urlsplit(self._settings.api_url).scheme != "https":
            raise Unavailable(
                "Hosts cannot join: they would not reach this API by TLS. Set 'listen' to an address of the "
                "network, or 'api_url' to the https:// address of the proxy in front "
                "(docs/how-to/add-a-host.md)."
            )

    async def _must_be_there(self, zone: str, pool: str | None) -> None:
        check_name(zone, "zone")
        async with self._database.read() as connection:
            zones = [row.name for row in await hosts.every_zone(connection)]
            pools = [row.name for row in await hosts.every_pool(connection) if row.zone == zone]
        if zone not in zones:
            raise NotFound(f"There is no zone {zone!r}, only {', '.join(zones)}; see 'skep zone ls'.")
        if pool is not None and pool not in pools:
            raise NotFound(f"Zone {zone!r} has no pool {pool!r}, only {', '.join(pools)}.")

    async def _must_be_free(self, host: str | None) -> None:
        if host is None:
            return
        async with self._database.read() as connection:
            found = await hosts.get(connection, HostName(check_name(host, "host")))
        if found is not None:
            raise Conflict(
                f"There is a host {host!r}: take another name, or remove it: skep host rm {host}. "
                "If it has lost what it proves itself with, it may join again: --again"
            )

    async def _must_be_known(self, zone: str, host: str | None) -> None:
        if host is None:
            raise InvalidInput("Which host joins again?  Give its name.")
        async with self._database.read() as connection:
            found = await hosts.get(connection, HostName(host))
        if found is None or found.zone != zone:
            raise NotFound(f"There is no host {host!r} in zone {zone!r}; see 'skep host ls'.")

    def _view(self, row: JoinTokenRow) -> JoinTokenView:
        state = "expired" if row.expires <= self._now() else "waiting"
        return JoinTokenView(
            id=row.id,
            host=row.host,
            zone=row.zone,
            pool=row.pool,
            state="used" if row.used is not None else state,
            created=rfc3339(row.created),
            created_by=row.created_by,
            expires=rfc3339(row.expires),
            used=rfc3339(row.used),
        )


def hash_token(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

"""What an installation has from its first start: a zone, its host, a tenant, an admin and a token."""

import os
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Role
from skep.control.clock import Now
from skep.control.tenants.tokens import hash_secret, new_secret
from skep.flow import Database
from skep.model.errors import InvalidInput
from skep.model.host import HostFacts
from skep.model.ids import Bytes, HostName, RegionName, TenantId, TokenId, UserId, ZoneName
from skep.model.names import TenantName
from skep.model.topology import Liveness
from skep.model.views.tenants import Quota
from skep.store import hosts, schema, tenants, users
from skep.store.hosts import HostRow, ZoneRow
from skep.store.tenants import TenantRow
from skep.store.users import TokenRow, UserRow

log = structlog.get_logger(__name__)

SHORTEST_SECRET = 32
DEFAULT_TENANT = TenantName("default")
ADMIN = "admin"
UNBOUNDED = Quota(
    apps=10_000, replicas=100_000, cpus=1e6, memory=Bytes(2**60), disk=Bytes(2**60), published_ports=60_000
)


async def prepare_installation(
    database: Database,
    *,
    region: RegionName,
    zone: ZoneName,
    token_file: Path,
    given: bool = False,
    now: Now,
    new_id: Callable[[], str],
) -> None:
    """Make what is missing.  The admin's token is written to `token_file` (root only), never to a log.

    A token of the file that was revoked stays revoked: the file gets a new one.  One that is `given` is the
    operator's, is only read, and counts from the first start on.  Several processes may do so at once.

    Raises:
        InvalidInput: the file that is given holds no token, or one that can be guessed.
    """
    if given:
        require_secret(token_file)
    secret = await _standing_secret(database, token_file)
    if given and not secret:
        log.warning("admin-token.unknown", file=str(token_file), reason="revoked, or changed since the start")
    elif not secret:
        secret = new_secret()

    async def change(connection: AsyncConnection) -> None:
        await schema.take_turn(connection)
        await hosts.ensure_zone(connection, ZoneRow(name=zone, region=region))
        if secret:
            await _ensure_admin(connection, secret, now(), new_id)

    await database.write(change)
    if not given:
        _write_token(token_file, secret)


def require_secret(path: Path) -> None:
    """Raises InvalidInput: it is not there, or what it holds can be guessed."""
    if len(_token_in(path)) < SHORTEST_SECRET:
        raise InvalidInput(
            f"The setting 'admin_token' names {path}: that must hold at least {SHORTEST_SECRET} random "
            "characters, such as of: openssl rand -hex 32"
        )


async def register_host(
    database: Database, zone: ZoneName, host: HostName, facts: HostFacts, underlay: str = ""
) -> None:
    """The machine of this process is a host of the zone, which must be there.

    `underlay`: its address on the network between hosts, if there are others.
    """

    async def change(connection: AsyncConnection) -> None:
        await hosts.save(
            connection,
            HostRow(
                name=host,
                zone=zone,
                pool=await hosts.default_pool(connection, zone),
                state=Liveness.READY,
                cpus=facts.cpus,
                memory=facts.memory,
                kernel=facts.kernel,
                cgroups=facts.cgroups,
                boot_id=facts.boot_id,
                underlay=underlay,
            ),
        )

    await database.write(change)


async def _standing_secret(database: Database, token_file: Path) -> str:
    """The secret in the file, unless an installation that knows its admin does not know it (any more)."""
    secret = _token_in(token_file)
    async with database.read() as connection:
        known = await users.token_by_hash(connection, hash_secret(secret)) is not None
        return secret if known or await users.by_name(connection, ADMIN) is None else ""


async def _ensure_admin(
    connection: AsyncConnection, secret: str, now: float, new_id: Callable[[], str]
) -> None:
    tenant = await tenants.by_name(connection, DEFAULT_TENANT)
    if tenant is None:
        tenant = TenantRow(id=TenantId(new_id()), name=DEFAULT_TENANT, quota=UNBOUNDED, created=now)
        await tenants.insert(connection, tenant)
    admin = await users.by_name(connection, ADMIN)
    if admin is None:
        admin = UserRow(
            id=UserId(new_id()), tenant_id=tenant.id, name=ADMIN, role=Role.ADMIN.value, created=now
        )
        await users.insert(connection, admin)
    digest = hash_secret(secret)
    if await users.token_by_hash(connection, digest) is None:
        token = TokenRow(
            id=TokenId(new_id()),
            tenant_id=tenant.id,
            user_id=admin.id,
            name="installation",
            hash=digest,
            created=now,
            expires=None,
            last_used=None,
        )
        await users.insert_token(connection, token)


def _token_in(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _write_token(path: Path, secret: str) -> None:
    if _token_in(path) == secret:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    temporary.rename(path)

"""Migrations, and what every table must have."""

import json
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from skep.flow import Database, RunId
from skep.flow.definition.expressions import Reference, Text
from skep.flow.definition.plan import Plan, RetryPolicy
from skep.flow.runs import Claim, Priority
from skep.flow.storage import records, unfinished
from skep.flow.storage import tables as flow_tables
from skep.model.errors import Conflict
from skep.model.ids import ZoneName
from skep.model.topology import PoolName
from skep.store import hosts, networks, replicas, tables
from skep.store.hosts import PoolRow
from skep.store.schema import MIGRATIONS, differences, migrate, revisions

NOBODYS = {
    "acme_accounts",
    "regions",
    "zones",
    "pools",
    "hosts",
    "tenants",
    "authorities",
    "clusters",
    "certificates",
    "join_tokens",
    "leases",
    "schema_serves",
    "egress_addresses",
}
"""They belong to the installation."""
SHARED = {"images"}
"""Rows of tenant "" belong to everybody, so their tenant is no foreign key."""


async def test_migrations_make_exactly_the_tables(database: Database) -> None:
    assert await differences(database.engine) == []


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await migrate(database.engine)

    assert await differences(database.engine) == []


async def test_a_difference_would_be_found(database: Database) -> None:
    await database.write(lambda tx: tx.exec_driver_sql("ALTER TABLE apps ADD COLUMN more TEXT"))

    assert len(await differences(database.engine)) == 1


async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    await become_newer(database, serves="9999")

    with pytest.raises(Conflict, match="schema 9999"):
        await migrate(database.engine)


async def test_a_newer_schema_that_serves_this_version_is_left_alone(database: Database) -> None:
    await become_newer(database, serves=head())

    await migrate(database.engine)

    async with database.read() as connection:
        found = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        assert found.scalar_one() == "9999"


async def test_a_newer_schema_that_serves_only_newer_versions_is_refused(database: Database) -> None:
    await become_newer(database, serves="9998")

    with pytest.raises(Conflict, match="schema 9999"):
        await migrate(database.engine)


async def test_every_migration_that_serves_an_older_schema_names_one(database: Database) -> None:
    revisions = {one.revision: one.module for one in scripts().walk_revisions()}

    served = {name: module.serves for name, module in revisions.items() if hasattr(module, "serves")}

    assert all(revisions.keys() >= {older} and older < name for name, older in served.items())


def test_migrations_bear_their_revisions_in_their_names() -> None:
    """Whether a schema is current is told by them, without loading what migrates."""
    assert revisions() == sorted(one.revision for one in scripts().walk_revisions())
    assert revisions()[-1] == head()


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


def head() -> str:
    return str(scripts().get_current_head())


async def become_newer(database: Database, serves: str) -> None:
    """As a version leaves it that this one has never heard of."""

    async def change(tx: AsyncConnection) -> None:
        await tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        await tx.execute(sa.update(tables.schema_serves).values(revision=serves))

    await database.write(change)


async def test_a_migration_happens_whole_or_not_at_all(url: str) -> None:
    """A table that stands in the way of a later one must not leave the earlier ones behind."""
    database = await Database.open(url, durable=False)
    await database.write(lambda tx: tx.exec_driver_sql("CREATE TABLE published_ports (id INTEGER)"))

    with pytest.raises(sa.exc.DBAPIError, match="already exists"):
        await migrate(database.engine)

    async with database.read() as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    await database.close()
    assert names == ["published_ports"]


OLD_PLAN = {
    "flow": "build",
    "input": {"app": "str"},
    "locks": [{"type": "text", "parts": ["app/", {"type": "reference", "source": "input", "path": ["app"]}]}],
    "output": {},
    "steps": [
        {"name": "fetch", "use": "image.fetch", "retry": 3, "timeout": 60.0},
        {
            "name": "push",
            "use": "image.push",
            "after": [0],
            "arguments": {"image": {"type": "reference", "source": "fetch", "path": ["id"]}},
        },
    ],
}
"""As the first schema's version stored it."""


async def test_runs_that_are_under_way_survive_the_update(url: str) -> None:
    """Data of the first schema is what today's code reads."""
    database = await Database.open(url, durable=False)
    await upgrade(database, "0001")
    await database.write(insert_old_runs)

    await migrate(database.engine)

    async with database.read() as connection:
        stored = await unfinished.load(connection, [RunId("under-way"), RunId("free")])
        history = await records.history(connection, RunId("under-way"), 0)
    found = await differences(database.engine)
    await database.close()
    assert found == []
    assert [item.row.locks for item in stored] == [(Claim("app/x", 1), Claim('app/"y"', 1)), ()]
    assert (stored[0].row.priority, stored[0].row.worker, stored[0].row.paused) == (
        Priority.NORMAL,
        None,
        False,
    )
    assert stored[0].steps["fetch"].result == b'{"id": "i"}'
    assert stored[0].sequence == history[-1].sequence == 1
    plan = msgspec.json.decode(stored[0].content, type=Plan)
    assert [step.retry for step in plan.steps] == [RetryPolicy(times=3), None]
    assert plan.locks == (Text(("app/", Reference("input", ("app",)))),)


async def upgrade(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def upgrade(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with database.engine.begin() as connection:
        await connection.run_sync(upgrade)


async def insert_old_runs(connection: AsyncConnection) -> None:
    """One that is half done and holds locks, and one that has none."""
    old = sa.MetaData()
    await connection.run_sync(lambda sync: old.reflect(sync, only=["flow_definitions", "flow_runs"]))
    await connection.run_sync(lambda sync: old.reflect(sync, only=["flow_steps", "flow_events"]))
    await connection.execute(
        sa.insert(old.tables["flow_definitions"]).values(
            hash="h", name="build", content=json.dumps(OLD_PLAN).encode(), created=1.0
        )
    )
    run = {
        "flow": "build",
        "definition": "h",
        "title": "",
        "tenant": "a",
        "labels": "{}",
        "key": None,
        "input": b"{}",
        "total": 2,
        "created": 1.0,
        "state": "running",
        "cause": "",
        "error": "",
        "output": b"{}",
        "epoch": 1,
        "started": 1.0,
        "finished": None,
    }
    for identifier, locks in (("under-way", ["app/x", 'app/"y"']), ("free", [])):
        values = run | {"id": identifier, "locks": json.dumps(locks)}
        await connection.execute(sa.insert(old.tables["flow_runs"]).values(values))
    step = {"attempts": 1, "undo_attempts": 0, "error": "", "message": "", "started": 1.0, "finished": 2.0}
    await connection.execute(
        sa.insert(old.tables["flow_steps"]).values(
            run="under-way", step="fetch", state="succeeded", result=b'{"id": "i"}', **step
        )
    )
    await connection.execute(
        sa.insert(old.tables["flow_events"]).values(
            run="under-way", sequence=1, step="", kind="run-created", at=1.0, message=""
        )
    )


async def test_hosts_and_published_ports_survive_the_update_to_many_hosts(url: str) -> None:
    database = await Database.open(url, durable=False)
    await upgrade(database, "0002")
    await database.write(insert_old_host)

    await migrate(database.engine)

    async with database.read() as connection:
        (host,) = await hosts.every(connection)
        (pool,) = await hosts.every_pool(connection)
        replicas_left = await replicas.find(connection)
        (published,) = await networks.published_ports(connection)
    found = await differences(database.engine)
    await database.close()
    assert found == []
    assert (host.name, host.zone, host.pool, host.state, host.intent) == ("h", "z", "z", "ready", "active")
    assert (host.cpus, host.boot_id, host.labels, host.lease_expires) == (4, "b", {}, None)
    assert host.schedulable
    assert pool == PoolRow(name=PoolName("z"), zone=ZoneName("z"))
    assert [row.host for row in replicas_left] == ["h"]
    assert (published.published, published.target) == (8080, 80)


async def insert_old_host(connection: AsyncConnection) -> None:
    """A host with a replica that publishes a port, as the second schema had them."""
    old = sa.MetaData()
    await connection.run_sync(lambda sync: old.reflect(sync))
    owned: dict[str, object] = {"tenant_id": "a", "app_id": "shop"}
    place = {"host": "h", "container_id": "c", "desired": "running", "status": None}
    app = {"release_id": None, "revision": 0, "version": 0, "removing": False, "remove_volumes": False}
    port = {"host": "h", "host_ip": "0.0.0.0", "protocol": "tcp", "published": 8080, "target": 80}
    machine = {"cpus": 4, "memory": 2**34, "kernel": "6", "cgroups": "v2", "boot_id": "b"}
    rows: list[tuple[str, dict[str, object]]] = [
        ("regions", {"name": "r"}),
        ("zones", {"name": "z", "region": "r"}),
        ("hosts", {"name": "h", "zone": "z", "state": "ready"} | machine),
        ("tenants", {"id": "a", "name": "a", "quota": "{}", "created": 1.0}),
        ("apps", {"id": "shop", "tenant_id": "a", "name": "shop", "created": 1.0, "updated": 1.0} | app),
        ("services", owned | {"id": "web", "name": "web"}),
        (
            "replicas",
            {"id": "web-0", "service_id": "web", "service": "web", "ordinal": 0, "created": 1.0}
            | owned
            | place,
        ),
        ("published_ports", {"id": "p", "tenant_id": "a", "service_id": "web"} | port),
    ]
    for table, values in rows:
        await connection.execute(sa.insert(old.tables[table]).values(values))


@pytest.mark.parametrize("name", sorted(set(tables.metadata.tables) - NOBODYS))
def test_every_owned_row_carries_its_tenant(name: str) -> None:
    column = tables.metadata.tables[name].c.get("tenant_id")

    assert column is not None
    assert not column.nullable
    targets = {key.target_fullname for key in column.foreign_keys}
    assert targets == (set() if name in SHARED else {"tenants.id"})


def test_names_are_unique_within_their_tenant() -> None:
    for name in ("apps", "networks", "disks", "images"):
        table = tables.metadata.tables[name]
        unique = [
            {column.name for column in constraint.columns}
            for constraint in table.constraints
            if isinstance(constraint, sa.UniqueConstraint)
        ]
        assert any("tenant_id" in columns and len(columns) == 2 for columns in unique), name


def test_the_flow_engine_and_the_cloud_share_no_table() -> None:
    assert not set(tables.metadata.tables) & set(flow_tables.metadata.tables)


async def test_foreign_keys_are_enforced(database: Database) -> None:
    row = {"name": "z", "region": "nowhere"}

    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        await database.write(lambda tx: tx.execute(sa.insert(tables.zones).values(row)))


async def test_without_the_pragma_they_would_not_be(tmp_path: Path) -> None:
    """Why `Database` sets it: SQLite's own default is off."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'plain.db'}")
    async with engine.connect() as connection:
        answer = (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar()
    await engine.dispose()

    assert answer == 0

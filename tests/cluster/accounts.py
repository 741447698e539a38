"""What must be true of a data centre when it has been left in peace for a moment."""

import asyncio
from collections.abc import Iterable, Set

import asyncpg
from tests.cluster.customers import Customer
from tests.cluster.datacentre import DataCentre

PATIENCE = 60.0


async def until_in_order(centre: DataCentre, customers: Iterable[Customer]) -> None:
    """Raises AssertionError with everything that is still wrong after `PATIENCE` seconds."""
    customers = list(customers)
    wrong = ["not looked yet"]
    try:
        async with asyncio.timeout(PATIENCE):
            while wrong := await disorder(centre, customers):
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError("\n".join([*wrong, centre.said()])) from None


async def disorder(centre: DataCentre, customers: list[Customer]) -> list[str]:
    """All that differs from what was asked for, on every host and in every table."""
    connection = await centre.database.connect("skep")
    try:
        return [
            *await _runs(connection),
            *await _apps(connection, customers),
            *await _effects(centre, connection, customers),
            *await _hosts(centre, connection),
        ]
    finally:
        await connection.close()


async def _runs(connection: asyncpg.Connection) -> list[str]:
    """Every one has ended well, and no step of it was done twice."""
    rows = await connection.fetch("SELECT title, state, error FROM flow_runs WHERE state <> 'succeeded'")
    twice = await connection.fetch(
        "SELECT run, step, count(*) AS times FROM flow_events WHERE kind = 'succeeded' "
        "GROUP BY run, step HAVING count(*) > 1"
    )
    wrong = [f"run {row['title']!r} is {row['state']}: {row['error']}" for row in rows]
    return wrong + [f"step {row['step']} of {row['run']} was done {row['times']} times" for row in twice]


async def _apps(connection: asyncpg.Connection, customers: list[Customer]) -> list[str]:
    """As they were last asked for: there or not, and with so many replicas, all of which run."""
    rows = await connection.fetch(
        "SELECT apps.name AS app, service, ordinal, status::json->>'state' AS state "
        "FROM replicas JOIN apps ON apps.id = app_id"
    )
    wrong = [
        f"{row['app']}/{row['service']}-{row['ordinal']} is {row['state']}"
        for row in rows
        if row["state"] != "running"
    ]
    found = {(row["app"], row["service"], row["ordinal"]) for row in rows}
    names = {customer.name for customer in customers}
    wanted = {
        (customer.name, name, ordinal)
        for customer in customers
        if customer.wanted is not None
        for name, service in customer.wanted["services"].items()
        for ordinal in range(service["replicas"])
    }
    there = {row["name"] for row in await connection.fetch("SELECT name FROM apps")}
    wrong += _differing(
        "app", {customer.name for customer in customers if customer.wanted is not None}, there & names
    )
    return wrong + _differing("replica", wanted, {key for key in found if key[0] in names})


async def _effects(
    centre: DataCentre, connection: asyncpg.Connection, customers: list[Customer]
) -> list[str]:
    """Each release started its container once, and the last one is the one that was asked for last."""
    query = (
        "SELECT disks.id, disks.host FROM disks JOIN apps ON apps.id = disks.app_id "
        "WHERE kind = 'data' AND apps.name = $1"
    )
    wrong = []
    for customer in customers:
        if customer.wanted is None or (row := await connection.fetchrow(query, customer.name)) is None:
            continue
        path = centre.agents[row["host"]].folder / "data/pool/disks" / row["id"] / "starts"
        starts = path.read_text().split() if path.exists() else []
        last = customer.wanted["services"]["one"]["environment"]["N"]
        if len(starts) != len(set(starts)):
            wrong.append(f"{customer.name}: started more than once: {starts}")
        if not starts or starts[-1] != last:
            wrong.append(f"{customer.name}: release {last} is not what runs: {starts}")
    return wrong


async def _hosts(centre: DataCentre, connection: asyncpg.Connection) -> list[str]:
    """Each has what the rows say, and nothing else."""
    wrong = []
    for host in centre.agents:
        query = "SELECT container_id, id FROM replicas WHERE host = $1"
        rows = await connection.fetch(query, host)
        containers = {row["container_id"] for row in rows}
        wrong += _differing(f"container on {host}", containers, centre.containers(host))
        wrong += _differing(f"cgroup on {host}", containers, centre.cgroups(host))
        disks = await connection.fetch("SELECT id FROM disks WHERE host = $1", host)
        wrong += _differing(f"disk on {host}", {row["id"] for row in disks}, centre.disks(host))
        if len(centre.sandboxes(host)) != len(rows):
            wrong.append(f"{host} has {len(centre.sandboxes(host))} sandboxes for {len(rows)} replicas")
    counted = [
        await connection.fetchval(f"SELECT count(*) FROM {table}")
        for table in ("replicas", "containers", "ports")
    ]
    if len(set(counted)) != 1:
        wrong.append("there are {} replicas, {} containers and {} ports".format(*counted))
    return wrong


def _differing(what: str, wanted: Set[object], found: Set[object]) -> list[str]:
    wrong = [f"{what}: {name} is missing" for name in sorted(wanted - found, key=str)]
    return wrong + [f"{what}: {name} is too much" for name in sorted(found - wanted, key=str)]

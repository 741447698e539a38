"""One change of an app at a time: of two that are asked for at the same moment one is accepted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import REGISTRY, Installation, installation
from tests.flow.postgresql import cluster, fresh_database, make_template
from tests.schema import prepare

from skep.control.apps.apps import Apps
from skep.control.apps.changes import Overtaken, claim
from skep.control.settings import Settings
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, NotFound
from skep.model.ids import Bytes, new_id
from skep.model.names import AppName, ServiceName
from skep.model.spec import AppSpec, Dependency, RestartPolicy, ServiceSpec
from skep.model.views.base import Accepted
from skep.store import apps

__all__ = ["cluster"]

Two = tuple[Installation, Sequence[Apps]]


@pytest.fixture(params=["sqlite", "postgresql"])
async def two(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Two]:
    """An installation and two entrances to it; on PostgreSQL each with an engine of its own."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            made = await stack.enter_async_context(installation(tmp_path))
            yield made, [made.control.apps] * 2
            return
        cluster = request.getfixturevalue("cluster")
        await make_template(cluster, "migrated", prepare)
        url = await stack.enter_async_context(fresh_database(cluster, "migrated"))
        made = await stack.enter_async_context(installation(tmp_path, url=url, shared=True))
        yield made, [await stack.enter_async_context(entrance(tmp_path, url)) for _ in range(2)]


@asynccontextmanager
async def entrance(folder: Path, url: str) -> AsyncIterator[Apps]:
    database = await Database.open(url, durable=False)
    settings = Settings(spool=folder, default_disk=Bytes(1024**2))
    try:
        async with FlowEngine(
            database, REGISTRY, lambda route: route, create_tables=False, shared=True, capacity=0
        ) as flows:
            yield Apps(database, flows, settings, lambda: 1_800_000_000.0, new_id)
    finally:
        await database.close()


def slow_app(name: str, version: int = 1) -> AppSpec:
    """Its job takes half a second, and is done anew for each version."""
    job = ServiceSpec(image="busybox:1", command=("sleep", "0.5"), restart=RestartPolicy(condition="no"))
    job = msgspec.structs.replace(job, environment={"VERSION": str(version)})
    done = {ServiceName("job"): Dependency(condition="service_completed_successfully")}
    web = ServiceSpec(image="busybox:1", command=("sleep", "infinity"), depends_on=done)
    return AppSpec(name=AppName(name), services={ServiceName("job"): job, ServiceName("web"): web})


async def at_once(*asked: Awaitable[Accepted]) -> Accepted:
    """The one that was accepted; the other was not, and was told the run of this one."""
    results = await asyncio.gather(*asked, return_exceptions=True)
    accepted = [one for one in results if isinstance(one, Accepted)]
    refused = [one for one in results if isinstance(one, Conflict)]
    assert (len(accepted), len(refused)) == (1, 1), results
    assert refused[0].details["run"] == accepted[0].run
    return accepted[0]


async def test_of_two_who_make_an_app_at_the_same_moment_one_does(two: Two) -> None:
    made, entrances = two

    run = await at_once(*(one.apply(made.admin, slow_app("shop")) for one in entrances))

    await made.finish(run)


async def test_of_two_who_change_an_app_at_the_same_moment_one_does(two: Two) -> None:
    made, entrances = two
    await made.finish(await made.control.apps.apply(made.admin, slow_app("shop")))

    for version in (2, 3):
        run = await at_once(*(one.apply(made.admin, slow_app("shop", version)) for one in entrances))
        await made.finish(run)


async def test_an_app_is_removed_once(two: Two) -> None:
    made, entrances = two
    await made.finish(await made.control.apps.apply(made.admin, slow_app("shop")))

    results = await asyncio.gather(
        *(one.remove(made.admin, "shop") for one in entrances), return_exceptions=True
    )

    assert sum(isinstance(one, Accepted) for one in results) == 1, results
    assert sum(isinstance(one, Conflict | NotFound) for one in results) == 1, results


async def test_what_was_planned_before_the_app_was_changed_is_planned_anew(two: Two) -> None:
    made, _ = two
    await made.finish(await made.control.apps.apply(made.admin, slow_app("shop")))
    async with made.database.read() as connection:
        (before,) = await apps.every(connection)
    await made.finish(await made.control.apps.apply(made.admin, slow_app("shop", 2)))

    with pytest.raises(Overtaken):
        await made.database.write(lambda connection: claim(connection, made.flows, before))

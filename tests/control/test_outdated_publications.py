"""Hosts are told what services publish by many; what comes late must not be in anybody's way."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service

from skep.control.desired import DesiredState
from skep.control.plans.specifications import Limits
from skep.control.telling.traffic import Publishing
from skep.model.errors import Stale
from skep.model.host import ServicePublications
from skep.model.ids import HostName, ReplicaId
from skep.model.spec import PublishedPort
from skep.store import apps, replicas

ONE = HostName("host-1")
WEB = service(ports=(PublishedPort(target=80, published=8080),))


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def released(cloud: Installation) -> ServicePublications:
    """What is to be published by then."""
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, app(web=WEB)))
    (view,) = await cloud.control.replicas.list(cloud.admin, "shop")
    async with cloud.database.read() as connection:
        row = await replicas.get(connection, ReplicaId(view.id))
    assert row is not None
    return await DesiredState(cloud.database, Limits()).publications(row.service_id, ONE)


async def removed(cloud: Installation) -> None:
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))


async def test_a_service_gets_its_port_though_one_that_is_gone_was_published_once_more(
    cloud: Installation,
) -> None:
    read = await released(cloud)
    await removed(cloud)
    await cloud.host.fabric.publish(read)

    wanted = await released(cloud)

    there = await cloud.host.fabric.published()
    assert there[wanted.service].publications == wanted.publications
    assert there[read.service].publications == ()


async def test_a_service_that_is_gone_takes_no_port_from_one_that_came_after_it(cloud: Installation) -> None:
    read = await released(cloud)
    await removed(cloud)
    wanted = await released(cloud)

    with pytest.raises(Stale):
        await cloud.host.fabric.publish(read)

    there = await cloud.host.fabric.published()
    assert {service: one.publications for service, one in there.items()} == {
        wanted.service: wanted.publications
    }


async def test_what_becomes_of_replicas_publishes_nothing_of_an_app_on_its_way_out(
    cloud: Installation,
) -> None:
    before = await released(cloud)
    async with cloud.database.read() as connection:
        (row,) = await apps.every(connection)
    leaving = replace(row, removing=True)
    await cloud.database.write(lambda connection: apps.save(connection, leaving))
    await cloud.host.fabric.unpublish(before.service)

    desired = DesiredState(cloud.database, Limits())
    await Publishing(cloud.database, cloud.directory, desired).announce([before.service])

    assert await cloud.host.fabric.published() == {}

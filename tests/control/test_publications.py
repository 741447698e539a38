"""Numbers of published ports over updates: who keeps, who gets, and what a failed update gives back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.control.installation import HOST, Installation, installation
from tests.control.samples import stand_on_cluster
from tests.control.simulation import app, service

from skep.flow import RunId, RunState
from skep.model.errors import Conflict, InvalidInput
from skep.model.names import ServiceName
from skep.model.needs import NODE_PORTS
from skep.model.spec import AppSpec, Dependency, PublishedPort

WEB = PublishedPort(target=80, published=8080)
ADMIN = PublishedPort(target=81, published=8081)
ANY = PublishedPort(target=80)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def released(cloud: Installation, spec: AppSpec) -> None:
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, spec))


async def failed(cloud: Installation, spec: AppSpec) -> None:
    accepted = await cloud.control.apps.apply(cloud.admin, spec)
    record = await cloud.flows.wait(RunId(accepted.run or ""), 30)
    assert record.state is RunState.FAILED, (record.state, record.error)


async def published(cloud: Installation, name: str = "shop") -> dict[str, list[str]]:
    views = await cloud.control.replicas.list(cloud.admin, name)
    return {view.name: [port.split("->")[0].rsplit(":", 1)[1] for port in view.ports] for view in views}


async def test_a_renamed_service_takes_its_port_along(cloud: Installation) -> None:
    await released(cloud, app(web=service(ports=(WEB,))))

    await released(cloud, app(front=service(ports=(WEB,))))

    assert await published(cloud) == {"front-0": ["8080"]}


async def test_two_services_swap_their_ports(cloud: Installation) -> None:
    await released(cloud, app(one=service(ports=(WEB,)), two=service(ports=(ADMIN,))))

    await released(cloud, app(one=service(ports=(ADMIN,)), two=service(ports=(WEB,))))

    assert await published(cloud) == {"one-0": ["8081"], "two-0": ["8080"]}


async def test_a_chosen_number_stays_when_the_service_is_scaled(cloud: Installation) -> None:
    await released(cloud, app("first", web=service(ports=(ANY,))))
    await released(cloud, app(web=service(ports=(ANY,))))
    before = await published(cloud)
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "first"))

    await released(cloud, app(web=service(ports=(ANY,), replicas=2)))

    assert (await published(cloud))["web-0"] == before["web-0"] == ["49153"]


async def test_a_number_that_is_chosen_in_a_cluster_is_one_that_its_nodes_offer(cloud: Installation) -> None:
    await stand_on_cluster(cloud.database, "zone", HOST)

    await released(cloud, app(web=service(ports=(ANY,))))

    ((number,),) = (await published(cloud)).values()
    assert int(number) in NODE_PORTS


async def test_an_update_that_fails_gives_back_every_number(cloud: Installation) -> None:
    await released(cloud, app(web=service(ports=(WEB,))))

    await failed(cloud, app(front=service("fail", ports=(WEB, ADMIN))))

    assert await published(cloud) == {"web-0": ["8080"]}


async def test_nobody_else_gets_a_number_before_the_update_that_drops_it_has_ended(
    cloud: Installation,
) -> None:
    await released(cloud, app(web=service(ports=(WEB,))))
    waiting = {ServiceName("job"): Dependency(condition="service_completed_successfully")}
    changed = app(job=service("sleep", "60"), web=service(ports=(ADMIN,), depends_on=waiting))
    accepted = await cloud.control.apps.apply(cloud.admin, changed)
    while "8081" not in (await published(cloud))["web-0"]:
        await asyncio.sleep(0.02)

    with pytest.raises(Conflict):
        await cloud.control.apps.apply(cloud.admin, app("other", web=service(ports=(WEB,))))

    await cloud.control.runs.cancel(cloud.admin, accepted.run or "")
    await cloud.flows.wait(RunId(accepted.run or ""), 30)
    assert await published(cloud) == {"web-0": ["8080"]}


async def test_one_number_may_be_published_on_two_addresses(cloud: Installation) -> None:
    ports = tuple(PublishedPort(target=80, published=8080, host_ip=ip) for ip in ("127.0.0.1", "127.0.0.2"))

    await released(cloud, app(web=service(ports=ports)))

    assert await published(cloud) == {"web-0": ["8080", "8080"]}
    with pytest.raises(InvalidInput, match="both publish"):
        await cloud.control.apps.plan(
            cloud.admin, app("two", one=service(ports=(WEB,)), two=service(ports=ports[:1]))
        )

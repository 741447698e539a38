"""The three laws for a move: fail anywhere, crash anywhere, repeat anywhere; there is always one whole app.

Between two zones of simulated hosts.  A crash in the middle of a copy is one of them.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs
from tests.control.simulation import ALICE, DATA, Act, Cloud, Laboratory, app, service

from skep.control.flows.catalogue import make_registry
from skep.flow.testing import Proof, check_three_laws
from skep.model.ids import HostName, RegionName, ZoneName
from skep.model.spec import AppExtensions, AppSpec, Dependency, PublishedPort, ServiceSpec
from skep.model.views.moves import MoveOrder
from skep.store import hosts, tables
from skep.store.hosts import ZoneRow

REGISTRY = make_registry()
EVERY = int(os.environ.get("SKEP_MOVE_EVERY", "67"))
"""How many places are passed over between two that are tried."""
THERE = HostName("host-2")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


def of(**services: ServiceSpec) -> AppSpec:
    return msgspec.structs.replace(app("shop", **services), x_skep=AppExtensions(zones=("z",)))


SHOP = of(
    web=service(
        ports=(PublishedPort(target=80, published=8080),),
        depends_on={"db": Dependency(condition="service_healthy")},
    ),
    db=service(mounts=(DATA,)),
)


async def another_zone(connection: AsyncConnection) -> None:
    """The second host is in a zone of its own."""
    await hosts.ensure_zone(connection, ZoneRow(name=ZoneName("far"), region=RegionName("r")))
    await connection.execute(
        sa.update(tables.hosts).where(tables.hosts.c.name == THERE).values(zone="far", pool="far")
    )


async def applied(cloud: Cloud, spec: AppSpec) -> None:
    await cloud.database.write(another_zone)
    await cloud.done(await cloud.apps.apply(ALICE, spec))


async def moved(cloud: Cloud, spec: AppSpec) -> None:
    await applied(cloud, spec)
    await cloud.done(await cloud.moving.start(ALICE, "shop", MoveOrder(to_zone="far")))


async def move(cloud: Cloud, order: MoveOrder) -> None:
    await cloud.moving.start(ALICE, "shop", order)


async def laws(folder: Path, before: Act, order: MoveOrder) -> Proof:
    laboratory = Laboratory(folder, REGISTRY, hosts=2)
    await laboratory.prepare(partial(move, order=order), before)
    return await check_three_laws(
        REGISTRY, laboratory.flow, laboratory.input, laboratory.worlds, folder, every=EVERY
    )


async def test_there_with_disks(tmp_path: Path) -> None:
    proof = await laws(tmp_path, partial(applied, spec=SHOP), MoveOrder(to_zone="far"))

    assert proof.failures >= 3


async def test_there_without_disks(tmp_path: Path) -> None:
    await laws(tmp_path, partial(applied, spec=of(web=service(replicas=2))), MoveOrder(to_zone="far"))


async def test_back_to_disks_as_they_were_left(tmp_path: Path) -> None:
    await laws(tmp_path, partial(moved, spec=SHOP), MoveOrder(back=True, data="drop"))

"""The three laws for the flows that ship: fail anywhere, crash anywhere, repeat anywhere.

On a simulated host, with the documents that the use cases make.
"""

from pathlib import Path

import pytest
from tests.control.simulation import ALICE, DATA, Act, Cloud, Laboratory, app, service

from skep.control.flows.catalogue import make_registry
from skep.flow.testing import Proof, check_three_laws
from skep.model.spec import Dependency, PublishedPort

REGISTRY = make_registry()
WEB = service(
    ports=(PublishedPort(target=80, published=8080),),
    depends_on={"db": Dependency(condition="service_started")},
)
SHOP = app(web=WEB, db=service(mounts=(DATA,)))
CHANGED = app(web=service("sleep", "1000000", ports=(PublishedPort(target=80, published=8081),)))


async def apply(cloud: Cloud) -> object:
    return await cloud.apps.apply(ALICE, SHOP)


async def applied(cloud: Cloud) -> None:
    await cloud.done(await cloud.apps.apply(ALICE, SHOP))


async def half_stopped(cloud: Cloud) -> None:
    await applied(cloud)
    await cloud.done(await cloud.apps.stop(ALICE, "shop", "db"))


async def prove(tmp_path: Path, act: Act, before: Act | None = None, every: int = 1) -> Proof:
    laboratory = Laboratory(tmp_path, REGISTRY)
    await laboratory.prepare(act, before)
    return await check_three_laws(
        REGISTRY, laboratory.flow, laboratory.input, laboratory.worlds, tmp_path, every=every
    )


async def test_applying_a_new_app(tmp_path: Path) -> None:
    proof = await prove(tmp_path, apply, every=2)
    print(proof)


@pytest.mark.parametrize("before", [applied, half_stopped])
async def test_applying_a_change(tmp_path: Path, before: Act) -> None:
    print(await prove(tmp_path, lambda cloud: cloud.apps.apply(ALICE, CHANGED), before, every=3))


@pytest.mark.parametrize("verb", ["stop", "start", "restart"])
async def test_switching_an_app_of_which_a_part_is_stopped(tmp_path: Path, verb: str) -> None:
    print(await prove(tmp_path, lambda cloud: getattr(cloud.apps, verb)(ALICE, "shop"), half_stopped))

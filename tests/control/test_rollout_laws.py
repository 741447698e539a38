"""The three laws for every strategy: fail anywhere, crash anywhere, repeat anywhere, on simulated hosts.

`SKEP_ROLLOUT_EVERY` says how many places are passed over between two that are tried (default: most).
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.control.simulation import ALICE, DATA, Act, Cloud, Laboratory, app, service

from skep.control.flows.catalogue import make_registry
from skep.flow.testing import Proof, check_three_laws
from skep.model.spec import (
    AppExtensions,
    AppSpec,
    Extensions,
    PublishedPort,
    ReleasePolicy,
    ServiceSpec,
    UpdateConfig,
)

REGISTRY = make_registry()
EVERY = int(os.environ.get("SKEP_ROLLOUT_EVERY", "23"))
PORT = (PublishedPort(target=80, published=8080),)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


def policy(spec: AppSpec, **values: object) -> AppSpec:
    release = ReleasePolicy(drain=0, interval=0, unchecked=True, **values)  # type: ignore[arg-type]
    return msgspec.structs.replace(spec, x_skep=AppExtensions(release=release))


def web(program: str = "infinity", **changes: Any) -> ServiceSpec:
    return service("sleep", program, **{"replicas": 2, "ports": PORT} | changes)


async def apply(cloud: Cloud, spec: AppSpec) -> None:
    await cloud.apps.apply(ALICE, spec)


async def applied(cloud: Cloud, spec: AppSpec) -> None:
    await cloud.done(await cloud.apps.apply(ALICE, spec))


async def laws(folder: Path, before: AppSpec, after: AppSpec) -> Proof:
    laboratory = Laboratory(folder, REGISTRY)
    act: Act = partial(apply, spec=after)
    await laboratory.prepare(act, partial(applied, spec=before))
    return await check_three_laws(
        REGISTRY, laboratory.flow, laboratory.input, laboratory.worlds, folder, every=EVERY
    )


async def test_start_first(tmp_path: Path) -> None:
    update = UpdateConfig(order="start-first")

    proof = await laws(tmp_path, app(web=web()), app(web=web("1000000", update=update)))

    assert proof.failures >= 3


async def test_tolerant_of_failures(tmp_path: Path) -> None:
    update = UpdateConfig(max_failure_ratio=0.5, failure_action="continue")

    await laws(tmp_path, app(web=web()), app(web=web("1000000", update=update)))


async def test_atomic(tmp_path: Path) -> None:
    before = app(web=web(), gone=service())
    after = policy(app(web=web("1000000"), new=service()), strategy="atomic")

    await laws(tmp_path, before, after)


async def test_canary(tmp_path: Path) -> None:
    after = policy(app(web=web("1000000", replicas=1)), strategy="canary", steps=(50,))

    await laws(tmp_path, app(web=web(replicas=1)), after)


async def test_stateful(tmp_path: Path) -> None:
    state: dict[str, Any] = {"mounts": (DATA,), "x_skep": Extensions(stateful=True), "ports": ()}

    await laws(tmp_path, app(db=web(**state)), app(db=web("1000000", **state)))

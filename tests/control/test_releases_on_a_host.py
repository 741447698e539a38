"""Releases on one real host: who asks meanwhile is always answered, and what fails leaves the old one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import pytest
from tests.machines import Machine, app, service

from skep.model.spec import (
    AppExtensions,
    AppSpec,
    Extensions,
    HealthCheck,
    Mount,
    PublishedPort,
    ReleasePolicy,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
)

pytestmark = pytest.mark.root
PORT = (PublishedPort(target=80, published=18_199),)
NEVER = RestartPolicy(condition="no")
CHECK = HealthCheck(test=("CMD", "wget", "-qO-", "http://127.0.0.1/"), interval=0.2, retries=2)


def web(says: str, **changes: Any) -> ServiceSpec:
    """A web server that says which revision it is."""
    serve = f"mkdir -p /tmp/www; echo {says} > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    wanted = service("sh", "-c", serve, replicas=2, ports=PORT, healthcheck=CHECK)
    return msgspec.structs.replace(wanted, **changes)


def policy(spec: AppSpec, **values: Any) -> AppSpec:
    return msgspec.structs.replace(spec, x_skep=AppExtensions(release=ReleasePolicy(**values)))


@dataclass
class Visitor:
    """Asks the published port all the time, each time on a new connection."""

    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def ask(self) -> None:
        async with httpx.AsyncClient(timeout=5, headers={"connection": "close"}) as client:
            while True:
                try:
                    answer = await client.get(f"http://127.0.0.1:{PORT[0].published}/")
                    self.answers.append(answer.text.strip() if answer.is_success else f"{answer}")
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                await asyncio.sleep(0.01)


@asynccontextmanager
async def visited() -> AsyncIterator[Visitor]:
    visitor = Visitor()
    task = asyncio.create_task(visitor.ask())
    try:
        yield visitor
        await asyncio.sleep(0.3)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
async def test_a_rolling_release_answers_every_request(cloud: Machine, order: Any) -> None:
    update = UpdateConfig(order=order)
    await cloud.apply(app(web=web("one", update=update)))

    async with visited() as visitor:
        await cloud.apply(app(web=web("two", update=update)))

    assert visitor.failures == []
    assert set(visitor.answers) == {"one", "two"}
    assert visitor.answers[-1] == "two"


async def test_an_atomic_release_has_no_answer_of_the_old_one_after_the_first_of_the_new_one(
    cloud: Machine,
) -> None:
    await cloud.apply(app(web=web("one")))

    async with visited() as visitor:
        await cloud.apply(policy(app(web=web("two")), strategy="atomic", drain=0.5))

    assert visitor.failures == []
    assert visitor.answers == sorted(visitor.answers)
    assert set(visitor.answers) == {"one", "two"}
    rows = (await cloud.control.apps.show(cloud.admin, "shop")).replicas
    assert [(row.name, row.revision) for row in rows] == [("web-0", 2), ("web-1", 2)]


@pytest.mark.parametrize(
    ("strategy", "order"), [("rolling", "stop-first"), ("rolling", "start-first"), ("canary", "stop-first")]
)
async def test_what_never_becomes_healthy_is_taken_back_unseen(
    cloud: Machine, strategy: Any, order: Any
) -> None:
    before = app(web=web("one"))
    await cloud.apply(before)
    sick = HealthCheck(test=("CMD", "false"), interval=0.2, retries=2)
    after = app(web=web("two", healthcheck=sick, update=UpdateConfig(order=order)))

    async with visited() as visitor:
        await cloud.apply(policy(after, strategy=strategy), expect="failed")

    assert visitor.failures == []
    assert set(visitor.answers) == {"one"}
    for name in ("web-0", "web-1"):  # what runs is told a moment after it was started again
        await cloud.until("shop", name, lambda row: (row.revision, row.state) == (1, "running"))
    assert len((await cloud.control.apps.show(cloud.admin, "shop")).replicas) == 2


async def test_what_crashes_while_it_is_watched_is_taken_back(cloud: Machine) -> None:
    await cloud.apply(app(web=web("one")))
    weak = web("two", healthcheck=None, update=UpdateConfig(order="start-first", monitor=10))
    script = "mkdir -p /tmp/www; httpd -p 80 -h /tmp/www; sleep 1; exit 3"
    weak = msgspec.structs.replace(weak, command=("sh", "-c", script))

    async with visited() as visitor:
        run = await cloud.apply(app(web=weak), expect="failed")

    assert visitor.failures == []
    assert set(visitor.answers) == {"one"}
    assert "ended" in (run.error or "")


async def test_an_atomic_release_can_be_switched_back_while_the_old_one_drains(cloud: Machine) -> None:
    await cloud.apply(app(web=web("one")))
    accepted = await cloud.control.apps.apply(
        cloud.admin, policy(app(web=web("two")), strategy="atomic", drain=600)
    )
    assert accepted.run is not None

    async with visited() as visitor:
        async with asyncio.timeout(60):
            while "two" not in visitor.answers:
                await asyncio.sleep(0.05)
        await cloud.control.runs.cancel(cloud.admin, accepted.run)
        await cloud.finish(accepted, expect="cancelled")

    assert visitor.failures == []
    assert visitor.answers[-1] == "one"


async def test_data_of_a_stateful_service_comes_back_when_its_release_fails(cloud: Machine) -> None:
    data = Mount(type="volume", source="data", target="/data")
    state: dict[str, Any] = {"mounts": (data,), "x_skep": Extensions(stateful=True), "replicas": 1}
    await cloud.apply(app(db=service("sleep", "1000", **state)))
    await cloud.output("shop", "db", "sh", "-c", "echo before > /data/file; sync")
    spoils = service("sh", "-c", "echo spoiled > /data/file; exit 1", **state)

    spoils = msgspec.structs.replace(spoils, restart=NEVER, update=UpdateConfig(monitor=5))

    await cloud.apply(app(db=spoils), expect="failed")

    assert await cloud.output("shop", "db", "cat", "/data/file") == "before\n"


async def test_what_is_not_in_force_by_its_deadline_is_taken_back(cloud: Machine) -> None:
    await cloud.apply(app(web=web("one")))
    slow = HealthCheck(test=("CMD", "false"), interval=0.5, retries=1000)

    async with visited() as visitor:
        after = policy(app(web=web("two", healthcheck=slow)), strategy="atomic", deadline=4)
        await cloud.apply(after, expect="failed")

    assert visitor.failures == []
    assert set(visitor.answers) == {"one"}


async def test_a_release_that_asks_goes_on_when_it_is_told_to(cloud: Machine) -> None:
    update = UpdateConfig(order="start-first", failure_action="pause")
    await cloud.apply(app(web=web("one", replicas=1)))
    sick = HealthCheck(test=("CMD", "false"), interval=0.2, retries=2)
    accepted = await cloud.control.apps.apply(
        cloud.admin, app(web=web("two", replicas=1, healthcheck=sick, update=update))
    )

    async with asyncio.timeout(60):
        while not await _asks(cloud, accepted.run or ""):
            await asyncio.sleep(0.1)
    await cloud.control.rollouts.resume(cloud.admin, "shop")

    await cloud.finish(accepted)
    assert (await cloud.replica("shop", "web-0")).revision == 2


async def _asks(cloud: Machine, run: str) -> bool:
    steps = (await cloud.control.runs.show(cloud.admin, run)).steps
    return any(one.name == "web-batch-1-approval" and one.state == "waiting" for one in steps)

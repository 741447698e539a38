"""kill -9 of skep in the middle of each strategy: the end is one whole release, and nobody was turned away.

SKEP_RELEASE_CRASHES=10 makes it ten rounds of each; every day it is one.
"""

import asyncio
import contextlib
import os
import random
from typing import Any

import httpx
import pytest
from tests.cluster.server import Server

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]

ROUNDS = int(os.environ.get("SKEP_RELEASE_CRASHES", "1"))
PORT = 18_082
START_FIRST = {"order": "start-first", "monitor": 0.5}
STRATEGIES: list[dict[str, Any]] = [
    {"update": START_FIRST},
    {"release": {"strategy": "atomic", "drain": 0.5}},
    {"release": {"strategy": "canary", "steps": [50], "interval": 0.5, "drain": 0.5}},
]


def shop(
    says: str, *, update: dict[str, Any] | None = None, release: dict[str, Any] | None = None
) -> dict[str, Any]:
    serve = f"mkdir -p /tmp/www; echo {says} > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    return {
        "name": "shop",
        "services": {
            "web": {
                "image": "busybox:1",
                "command": ["sh", "-c", serve],
                "replicas": 2,
                "stop_grace_period": 0.5,
                "ports": [{"target": 80, "published": PORT}],
                "healthcheck": {"test": ["CMD", "wget", "-qO-", "http://127.0.0.1/"], "interval": 0.2},
                "update": update or {},
            }
        },
        "x_skep": {"release": release or {}},
    }


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["start-first", "atomic", "canary"])
async def test_a_kill_in_the_middle_of_a_release_ends_in_one_whole_release(
    server: Server, strategy: dict[str, Any]
) -> None:
    chance = random.Random(20261129)
    await server.apply(shop("r0"))
    failures: list[str] = []

    async with _visited(failures):
        for round_ in range(1, ROUNDS + 1):
            await _killed_while_it_is_released(server, shop(f"r{round_}", **strategy), chance.uniform(0.3, 3))
            await _one_whole_release(server, round_)

    assert failures == []
    await server.ask("DELETE", "/apps/shop")
    await server.quiet()


async def _killed_while_it_is_released(server: Server, spec: dict[str, Any], after: float) -> None:
    await server.ask("POST", "/apps/shop/releases", json=spec)
    await asyncio.sleep(after)
    server.kill()
    await server.up()
    await server.quiet()


async def _one_whole_release(server: Server, round_: int) -> None:
    async with asyncio.timeout(30):
        while True:
            views = await server.ask("GET", "/replicas?app=shop")
            found = {(view["revision"], view["state"]) for view in views}
            if found == {(round_ + 1, "running")}:
                break
            await asyncio.sleep(0.1)
    assert sorted(view["name"] for view in views) == ["web-0", "web-1"]
    async with httpx.AsyncClient(timeout=5) as client:
        answers = {(await client.get(f"http://127.0.0.1:{PORT}/")).text for _ in range(10)}
    assert answers == {f"r{round_}\n"}


@contextlib.asynccontextmanager
async def _visited(failures: list[str]) -> Any:
    async def ask() -> None:
        async with httpx.AsyncClient(timeout=10, headers={"connection": "close"}) as client:
            while True:
                try:
                    answer = await client.get(f"http://127.0.0.1:{PORT}/")
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                await asyncio.sleep(0.02)

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

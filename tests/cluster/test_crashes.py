"""kill -9 of skep at random moments of `apply` and `rm`: nothing leaks, and the app ends as asked.

SKEP_CRASHES=100 makes it as many as the acceptance asks for; every day it is fewer.
"""

import asyncio
import os
import random
from pathlib import Path

import httpx
import pytest
from tests.cluster.server import Server

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200)]

ROUNDS = int(os.environ.get("SKEP_CRASHES", "10"))
SPEC = {
    "name": "shop",
    "services": {
        "web": {
            "image": "busybox:1",
            "command": ["httpd", "-f", "-p", "80", "-h", "/www"],
            "replicas": 2,
            "stop_grace_period": 0.2,
            "ports": [{"target": 80, "published": 18081}],
            "depends_on": {"db": {"condition": "service_started"}},
        },
        "db": {
            "image": "busybox:1",
            "command": ["sleep", "1000"],
            "stop_grace_period": 0.2,
            "mounts": [{"type": "volume", "source": "data", "target": "/data"}],
        },
    },
    "volumes": {"data": {}},
}


async def test_a_kill_at_any_moment_of_apply_and_rm_loses_and_leaks_nothing(server: Server) -> None:
    chance = random.Random(20261123)
    for round_ in range(ROUNDS):
        await _interrupt(server, "POST", "/apps/shop/releases", chance.uniform(0, 0.6), json=SPEC)
        await _apply_again_if_it_was_never_accepted(server)
        await _the_app_runs(server, round_)

        await _interrupt(server, "DELETE", "/apps/shop?volumes=true", chance.uniform(0, 0.6))
        await _remove_again_if_it_was_never_accepted(server)
        await _nothing_is_left(server, round_)


async def _interrupt(server: Server, method: str, path: str, after: float, **arguments: object) -> None:
    """Ask, kill the process a moment later, and bring it up again."""

    async def ask() -> None:
        try:
            await server.ask(method, path, **arguments)
        except httpx.HTTPError:
            return

    asking = asyncio.create_task(ask())
    await asyncio.sleep(after)
    server.kill()
    await asking
    await server.up()


async def _apply_again_if_it_was_never_accepted(server: Server) -> None:
    await server.quiet()
    answer = await server.ask("POST", "/apps/shop/releases", json=SPEC)
    if answer["run"]:
        run = await server.ended(answer["run"])
        assert run["state"] == "succeeded", run["error"]


async def _remove_again_if_it_was_never_accepted(server: Server) -> None:
    await server.quiet()
    if await server.status("/apps/shop") == 200:
        answer = await server.ask("DELETE", "/apps/shop?volumes=true")
        assert (await server.ended(answer["run"]))["state"] == "succeeded"


async def _the_app_runs(server: Server, round_: int) -> None:
    async with asyncio.timeout(20):
        while True:
            views = await server.ask("GET", "/replicas?app=shop")
            if [view["state"] for view in views] == ["running"] * 3:
                break
            await asyncio.sleep(0.1)
    async with httpx.AsyncClient(timeout=5) as client:
        assert (await client.get("http://127.0.0.1:18081/")).text == "hello\n", f"round {round_}"


async def _nothing_is_left(server: Server, round_: int) -> None:
    async with asyncio.timeout(20):
        while left := _left(server):
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                raise AssertionError(f"round {round_}: still there: {left}") from None
    assert await server.ask("GET", "/disks") == []
    assert await server.ask("GET", "/ports") == []


def _left(server: Server) -> list[str]:
    """What an app has on the machine: containers, sandboxes, mounts, disks, cgroups."""
    settings = server.settings
    found = [str(path) for path in (settings.data / "containers").glob("*")]
    found += [str(path) for path in Path("/run/netns").glob(f"{settings.instance}-r-*")]
    found += [str(path) for path in (settings.data / "pool/disks").glob("[0-9a-z]*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{settings.instance}/0*")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if str(settings.run) in line]
    return found

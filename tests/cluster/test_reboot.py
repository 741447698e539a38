"""What survives a reboot, `skep down`, and a kill of skep while work waits."""

import asyncio
import io
import shutil
import tarfile
from typing import Any

import httpx
import msgspec
import pytest
from tests.cluster.server import JSON, Server

from skep.agent.records import Records, boot_id
from skep.main.teardown import tear_down

pytestmark = pytest.mark.root

COUNTING = """
echo start >> /www/system; echo start >> /data/starts; ln -sf /data/starts /www/data
exec httpd -f -p 80 -h /www
"""
PORT = 18_191


def web(**changes: Any) -> JSON:
    return {
        "image": "busybox:1",
        "command": ["sh", "-c", COUNTING],
        "stop_grace_period": 0.2,
        "ports": [{"target": 80, "published": PORT}],
        "mounts": [{"type": "volume", "source": "data", "target": "/data"}],
        **changes,
    }


def shop(**services: JSON) -> JSON:
    return {"name": "shop", "services": services, "volumes": {"data": {}}}


async def read(path: str, timeout: float = 20) -> str:
    """What the app answers, once it does."""
    deadline = asyncio.get_running_loop().time() + timeout
    async with httpx.AsyncClient(timeout=2) as client:
        while True:
            try:
                return (await client.get(f"http://127.0.0.1:{PORT}/{path}")).text
            except httpx.HTTPError:
                assert asyncio.get_running_loop().time() < deadline, f"port {PORT} does not answer"
                await asyncio.sleep(0.1)


async def reboot(server: Server) -> None:
    """Power off: processes, mounts, namespaces and RUN are gone, and the next boot is another."""
    server.kill()
    records = Records(server.settings.data / "containers")
    before = list(records.read_all())
    await tear_down(server.settings, purge=False)
    for record in before:
        records.write(msgspec.structs.replace(record, boot="the-boot-before"))
    for path in server.settings.data.glob("*/sandbox-*.json"):
        path.write_text(path.read_text().replace(boot_id(), "the-boot-before"))
    shutil.rmtree(server.settings.run)


async def down(server: Server) -> None:
    server.down()


JOB = {"image": "busybox:1", "command": ["true"], "restart": {"condition": "no"}}


@pytest.mark.parametrize("interrupt", [reboot, down])
async def test_everything_runs_again_with_its_address_and_all_it_wrote(
    server: Server, interrupt: Any
) -> None:
    await server.apply(shop(web=web(), job=JOB))
    before = await server.runs("shop", "web-0")
    assert await read("system") == "start\n"

    for _ in range(2):
        await interrupt(server)
        await server.up()
        await server.runs("shop", "web-0")

    assert await read("system") == "start\n" * 3
    assert await read("data") == "start\n" * 3
    after = await server.runs("shop", "web-0")
    assert (after["addresses"], after["mac"]) == (before["addresses"], before["mac"])
    (job,) = [view for view in await server.ask("GET", "/replicas?app=shop") if view["name"] == "job-0"]
    assert (job["state"], job["exit_code"]) == ("exited", 0)


@pytest.mark.parametrize("interrupt", [reboot, down])
async def test_a_container_between_two_attempts_is_tried_again(server: Server, interrupt: Any) -> None:
    flaky = {
        "image": "busybox:1",
        "command": ["sh", "-c", "test -e /again && exec sleep 1000; touch /again; sleep 0.3; exit 3"],
        "restart": {"condition": "on-failure", "delay": 60},
    }
    await server.apply(shop(flaky=flaky))
    while (await server.ask("GET", "/replicas?app=shop"))[0]["state"] != "restarting":
        await asyncio.sleep(0.05)

    await interrupt(server)
    await server.up()

    await server.runs("shop", "flaky-0")


@pytest.mark.parametrize("interrupt", [reboot, down])
async def test_what_was_stopped_stays_stopped(server: Server, interrupt: Any) -> None:
    await server.apply(shop(web=web()))
    await server.ended((await server.ask("POST", "/apps/shop/stop"))["run"])

    await interrupt(server)
    await server.up()
    await asyncio.sleep(1)

    assert [view["state"] for view in await server.ask("GET", "/replicas?app=shop")] == ["stopped"]


async def test_a_container_without_a_record_is_made_again_by_the_next_server(server: Server) -> None:
    await server.apply(shop(web=web()))
    (directory,) = (server.settings.data / "containers").iterdir()

    server.kill()
    shutil.rmtree(directory)
    await server.up()

    await server.runs("shop", "web-0")
    assert await read("data") == "start\n" * 2


async def test_an_apply_that_waits_goes_on_after_a_kill(server: Server) -> None:
    slow = {"test": ["CMD", "test", "-e", "/tmp/ready"], "interval": 0.2, "retries": 100}
    command = "sleep 2; touch /tmp/ready; exec httpd -f -p 80 -h /www"
    answer = await server.ask(
        "POST", "/apps/shop/releases", json=shop(web=web(command=["sh", "-c", command], healthcheck=slow))
    )
    await server.runs("shop", "web-0")

    server.kill()
    await server.up()

    run = await server.ended(answer["run"])
    assert run["state"] == "succeeded", run["error"]


async def test_a_removal_that_waits_goes_on_after_a_kill(server: Server) -> None:
    await server.apply(
        shop(
            web=web(command=["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"], stop_grace_period=2)
        )
    )
    answer = await server.ask("DELETE", "/apps/shop")
    await asyncio.sleep(0.3)

    server.kill()
    await server.up()

    assert (await server.ended(answer["run"]))["state"] == "succeeded"
    assert await server.ask("GET", "/apps") == []


async def test_a_build_that_was_killed_is_done_again(server: Server) -> None:
    answer = await server.ask(
        "POST",
        "/images/build?reference=slow:1",
        content=context("FROM busybox:1\nRUN sleep 1 && echo made > /made\nCMD sleep 1000\n"),
    )
    await asyncio.sleep(0.7)

    server.kill()
    await server.up()

    run = await server.ended(answer["run"])
    assert run["state"] == "succeeded", run["error"]
    await server.apply(shop(web={"image": "slow:1", "stop_grace_period": 0.2}))


def context(dockerfile: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        tar.addfile(info, io.BytesIO(dockerfile.encode()))
    return data.getvalue()

"""Addresses, disks and time run out or jump: clear errors, and everybody else goes on."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.machines import Machine, MiB, app, configuration, fetch, leftover, machine, service

from skep.model.ids import Bytes
from skep.model.spec import AppNetwork, AppVolume, Mount, NetworkAttachment, PublishedPort

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("eager")]

DATA = Mount(type="volume", source="data", target="/data")
FILL = ("sh", "-c", "dd if=/dev/zero of=/data/fill bs=1M 2>&1; sync; echo ended")


@pytest.fixture
async def small(tmp_path: Path, archive: Path) -> AsyncIterator[Machine]:
    """An installation whose pool is soon full."""
    settings = msgspec.structs.replace(configuration(tmp_path), pool_size=Bytes(300 * MiB))
    async with machine(settings, archive) as result:
        yield result
    assert await leftover(settings.instance, tmp_path) == []


async def test_addresses_that_are_exhausted_fail_the_release_and_are_given_back(cloud: Machine) -> None:
    def spec(replicas: int) -> object:
        web = service("sleep", "1000", replicas=replicas, networks={"narrow": NetworkAttachment()})
        return msgspec.structs.replace(app(web=web), networks={"narrow": AppNetwork(subnet="10.77.0.0/29")})

    run = await cloud.apply(spec(6), expect="failed")  # type: ignore[arg-type]
    assert "10.77.0.0/29" in run.error
    assert "full" in run.error
    assert await cloud.control.apps.list(cloud.admin) == []

    await cloud.apply(spec(5))  # type: ignore[arg-type]
    await cloud.apply(spec(6), expect="failed")  # type: ignore[arg-type]
    assert (await cloud.control.apps.show(cloud.admin, "shop")).app.running == 5


async def test_a_full_disk_stops_its_writer_only(cloud: Machine) -> None:
    full = msgspec.structs.replace(
        app("full", web=service("sleep", "1000", mounts=(DATA,))), volumes={"data": AppVolume(size=32 * MiB)}
    )
    await cloud.apply(app(web=service(ports=(PublishedPort(target=80, published=18_182),))))
    await cloud.apply(full)

    said = await cloud.output("full", "web", *FILL)

    assert "quota exceeded" in said.lower()
    assert await cloud.output("shop", "web", "sh", "-c", "echo well > /tmp/x; cat /tmp/x") == "well\n"
    assert await fetch(18_182) == "hello\n"


async def test_a_full_pool_refuses_new_disks_in_plain_words_and_recovers(small: Machine) -> None:
    greedy = msgspec.structs.replace(
        app("greedy", web=service("sleep", "1000", mounts=(DATA,))),
        volumes={"data": AppVolume(size=1024 * MiB)},
    )
    await small.apply(app(web=service(ports=(PublishedPort(target=80, published=18_183),))))
    await small.apply(greedy)

    said = await small.output("greedy", "web", *FILL)
    refused = await small.apply(app("late", web=service()), expect="failed")

    assert "exceeded" in said.lower() or "no space" in said.lower()
    assert "pool is full" in refused.error
    assert await fetch(18_183) == "hello\n"
    await small.finish(await small.control.apps.remove(small.admin, "greedy", volumes=True))
    await small.apply(app("late", web=service()))


@pytest.mark.parametrize("jump", [10 * 365 * 86_400, -10 * 365 * 86_400], ids=["forward", "backward"])
async def test_a_clock_that_jumps_disturbs_nothing(
    cloud: Machine, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    await cloud.apply(app(web=service(ports=(PublishedPort(target=80, published=18_184),))))

    monkeypatch.setattr(time, "time", lambda: real() + jump)

    (pid,) = [path / "pid" for path in (cloud.settings.run / "containers").iterdir()]
    os.kill(int(pid.read_text()), signal.SIGKILL)
    await cloud.until("shop", "web-0", lambda view: view.state == "running" and view.restarts == 1)
    await cloud.apply(app(web=service(replicas=2, ports=(PublishedPort(target=80, published=18_184),))))
    monkeypatch.setattr(time, "time", real)
    await cloud.apply(app("other", web=service()))
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))
    assert [view.name for view in await cloud.control.apps.list(cloud.admin)] == ["other"]

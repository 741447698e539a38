"""The disk under skep's own state is full: changes are refused in plain words, nothing that runs stops."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.cluster.conftest import serving
from tests.cluster.server import Server
from tests.cluster.test_reboot import read, shop, web
from tests.machines import MiB, configuration

from skep.model.ids import Bytes

pytestmark = pytest.mark.root
OTHER = {"name": "third", "services": {"web": {"image": "busybox:1", "command": ["sleep", "99"]}}}


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A small file system of its own."""
    image, mount = tmp_path / "disk.img", tmp_path / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * MiB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.fixture
async def server(tmp_path: Path, disk: Path) -> AsyncIterator[Server]:
    """Everything of it is on the small disk: database, records, images, pool."""
    settings = msgspec.structs.replace(configuration(disk), pool_size=Bytes(128 * MiB))
    async with serving(settings, tmp_path) as running:
        yield running


async def test_a_full_disk_refuses_changes_and_recovers(server: Server, disk: Path) -> None:
    await server.apply(shop(web=web()))
    assert await read("system") == "start\n"
    fill(disk)

    refused = await server.try_("POST", "/apps/second/releases", json=OTHER | {"name": "second"})
    await asyncio.sleep(1)

    assert server.alive
    assert await read("system") == "start\n"
    assert (refused.status_code, "disk is full" in refused.text) == (503, True), refused.text
    listed = await server.try_("GET", "/apps")
    assert listed.status_code == 200, listed.text

    (disk / "fill").unlink()
    await server.quiet()
    await server.apply(OTHER)
    assert "start\n" in await read("system")
    await server.ended((await server.ask("DELETE", "/apps/third"))["run"])


async def test_a_container_killed_on_a_full_disk_comes_back(server: Server, disk: Path) -> None:
    await server.apply(shop(web=web()))
    fill(disk)
    (pid,) = server.settings.run.glob("containers/*/pid")

    subprocess.run(["kill", "-9", pid.read_text().strip()], check=True)
    await asyncio.sleep(1)
    assert server.alive
    (disk / "fill").unlink()

    assert (await read("system")).startswith("start\n")
    await server.runs("shop", "web-0")


async def test_a_server_killed_on_a_full_disk_starts_or_says_why(server: Server, disk: Path) -> None:
    await server.apply(shop(web=web()))
    fill(disk)
    server.kill()

    try:
        await server.up()
    except AssertionError as error:
        assert "error: " in str(error)  # noqa: PT017
        assert "Traceback" not in str(error)  # noqa: PT017
    (disk / "fill").unlink()
    server.kill()
    await server.up()

    await server.runs("shop", "web-0")
    assert await read("data") == "start\n"


def fill(disk: Path) -> None:
    """To the last block."""
    with (disk / "fill").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return

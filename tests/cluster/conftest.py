"""A skep in a process of its own, to be killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cluster.server import Server
from tests.machines import busybox_archive, configuration, leftover

from skep.main import tear_down


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    settings = configuration(tmp_path)
    running = Server(settings, tmp_path / "log")
    try:
        await running.up()
        await running.load(busybox_archive(tmp_path))
        yield running
    finally:
        await running.close()
        await tear_down(settings, purge=True)
    assert await leftover(settings.instance, tmp_path) == []

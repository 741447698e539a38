"""A skep in a process of its own, to be killed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.cluster.server import Server
from tests.machines import busybox_archive, configuration, leftover

from skep.configuration import Configuration
from skep.main.teardown import tear_down


@asynccontextmanager
async def serving(settings: Configuration, folder: Path) -> AsyncIterator[Server]:
    """A server with the image `busybox:1`; afterwards nothing of it is left."""
    running = Server(settings, folder / "log")
    try:
        await running.up()
        await running.load(busybox_archive(folder))
        yield running
    finally:
        await running.close()
        await tear_down(settings, purge=True)
    for part in (settings.data, settings.run):
        assert await leftover(settings.instance, part) == []


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(configuration(tmp_path), tmp_path) as running:
        yield running

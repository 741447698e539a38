"""What a process of control knows of hosts is as new as the database when it counts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.control.installation import Installation, installation

from skep.control.host_directory import HostDirectory
from skep.control.hosts.host_finding import HostFinder
from skep.control.hosts.liveness import Heartbeats, HostNews
from skep.model.errors import Unavailable
from skep.model.ids import HostName
from skep.providers.simulated import SimulatedHost
from skep.store import hosts

HOST = HostName("host-1")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def test_a_host_that_another_process_heard_of_answers_at_once(cloud: Installation) -> None:
    there, directory = SimulatedHost.make(), HostDirectory()
    finder = HostFinder(cloud.database, directory, lambda row: there, lambda name: None)
    await cloud.database.write(lambda connection: hosts.set_address(connection, HOST, "127.0.0.1:1"))
    await hear(cloud, for_seconds=-1)
    await cloud.database.write(lambda connection: hosts.lose(connection, [HOST]))
    await finder.look()
    assert "silent since" in directory.why_silent(HOST)

    await hear(cloud, for_seconds=60)

    assert await directory.answering(HOST) is there


async def test_a_host_that_is_made_again_under_its_name_is_not_the_one_that_was_removed(
    cloud: Installation,
) -> None:
    there, directory = SimulatedHost.make(), HostDirectory()
    HostFinder(cloud.database, directory, lambda row: there, lambda name: None)
    async with cloud.database.read() as connection:
        directory.learn(await hosts.every(connection))
    directory.learn([])  # it was removed
    directory.add(HOST, there)  # before the row of the new one was read

    assert await directory.place(HOST) is there


async def test_a_database_that_is_away_leaves_what_is_known(cloud: Installation) -> None:
    directory = HostDirectory()
    HostFinder(cloud.database, directory, lambda row: SimulatedHost.make(), lambda name: None)
    await cloud.database.close()

    with pytest.raises(Unavailable, match="does not answer"):
        await directory.answering(HOST)


async def hear(cloud: Installation, for_seconds: float) -> None:
    """As another process does."""
    await Heartbeats(cloud.database, HostNews(cloud.bus, cloud.clock), lambda: None, for_seconds).heartbeat(
        HOST
    )

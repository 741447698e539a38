"""skep is upgraded process by process, from the code of the release before to today's, with apps on it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.cluster.accounts import until_in_order
from tests.cluster.customers import Client, Customer
from tests.cluster.datacentre import DataCentre, data_centre
from tests.cluster.members import UP, Api, Member
from tests.cluster.release_before import VERSION, release_before
from tests.machines import busybox_archive

from skep import __version__
from skep.model.ids import HostName

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

_EVENTS = {"agent": "agent.up", "worker": "worker.up", "serve": "skep.up"}
"""What a process says once it is up, by its command."""


@pytest_asyncio.fixture
async def centre(tmp_path: Path) -> AsyncIterator[DataCentre]:
    """All of it is of the release before, and so is its database."""
    before = {"PYTHONPATH": str(release_before(tmp_path))}
    async with data_centre(tmp_path, hosts=2, workers=1, apis=1, more=before) as centre:
        await centre.load(busybox_archive(tmp_path))
        yield centre


async def test_processes_of_two_releases_work_together_while_one_after_the_other_is_replaced(
    centre: DataCentre,
) -> None:
    """Either release is on either side of every call, and the older one is started on today's schema, too."""
    client = Client(centre, random.Random(1))
    steady, shop = Customer(client, "steady"), Customer(client, "shop")
    await steady.apply()
    there = {host: pids(centre, host) for host in centre.agents}
    first, second = centre.agents.values()
    (worker,), (api,) = centre.workers, centre.apis
    assert await versions(centre) == {VERSION}

    await shop.apply()
    await upgrade(first)
    await shop.apply()
    await upgrade(worker)
    await restart(api)
    await shop.apply()
    await upgrade(api)
    await shop.apply()
    await upgrade(second)
    await shop.apply()

    assert await versions(centre) == {__version__}
    assert (steady.lost, shop.lost) == ([], [])
    assert [there[host] - pids(centre, host) for host in there] == [set(), set()], "a container was touched"
    await until_in_order(centre, [steady, shop])


async def upgrade(member: Member) -> None:
    """Replace it by one of today's release."""
    del member.variables["PYTHONPATH"]
    await restart(member)


async def restart(member: Member) -> None:
    up = f'"event": "{_EVENTS[member.command[-1]]}"'
    before = member.log.read_text().count(up)
    member.kill()
    member.start()
    await until(lambda: member.log.read_text().count(up) > before, member)
    if isinstance(member, Api):
        await member.until_it_answers()


async def until(true: Callable[[], bool], member: Member) -> None:
    deadline = time.monotonic() + UP
    while not true():
        assert member.alive, member.said()
        assert time.monotonic() < deadline, member.said()
        await asyncio.sleep(0.1)


async def versions(centre: DataCentre) -> set[str]:
    """Which the hosts say they have."""
    hosts: Any = await centre.ask("GET", "/hosts")
    return {host["version"] for host in hosts}


def pids(centre: DataCentre, host: HostName) -> set[int]:
    """Of what runs in the containers of the host."""
    group = f"{centre.instance}-{centre.numbers[host]}"
    found = Path("/sys/fs/cgroup").glob(f"*/{group}/*/cgroup.procs")
    return {int(pid) for path in found for pid in path.read_text().split()}

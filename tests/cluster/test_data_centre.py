"""What happens when one part of a data centre hangs or is cut off: one scenario each."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.cluster.accounts import until_in_order
from tests.cluster.customers import Client, Customer
from tests.cluster.datacentre import DataCentre, data_centre
from tests.cluster.members import Member
from tests.machines import busybox_archive

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def centre(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DataCentre]:
    folder = tmp_path_factory.mktemp("centre")
    async with data_centre(folder, hosts=2, workers=2) as centre:
        await centre.load(busybox_archive(folder))
        yield centre


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def customers(centre: DataCentre) -> AsyncIterator[list[Customer]]:
    """Each has an app, in order before and after every test; in the end it is gone."""
    client = Client(centre, random.Random(1))
    customers = [Customer(client, f"shop-{number}") for number in range(4)]
    await asyncio.gather(*(customer.apply() for customer in customers))
    yield customers
    await asyncio.gather(*(customer.remove() for customer in customers))


async def test_hosts_are_heard_again_after_the_database_restarted(centre: DataCentre) -> None:
    """The desks of the zones ended with the first look that failed."""
    await asyncio.to_thread(centre.database.kill)
    await asyncio.to_thread(centre.database.start)

    before = await rows(centre, "SELECT name, seen FROM hosts ORDER BY name")
    await asyncio.sleep(4)  # of which every two bring a sign of life

    after = await rows(centre, "SELECT name, seen FROM hosts ORDER BY name")
    assert [now["seen"] > then["seen"] for now, then in zip(after, before, strict=True)] == [True, True]


async def test_a_worker_that_hangs_and_goes_on_undoes_nothing_of_what_others_did(
    centre: DataCentre, customers: list[Customer]
) -> None:
    """Its runs are taken over; when it goes on it finds its commits, and hosts its commands, refused."""
    changing = [asyncio.create_task(customer.apply()) for customer in customers]
    await asyncio.sleep(0.7)
    held = centre.workers[0]

    held.hold()
    await asyncio.gather(*changing)
    held.go_on()

    await until(lambda: said(held, "flow.fenced"))
    await until_in_order(centre, customers)
    assert [customer.lost for customer in customers] == [[]] * len(customers)


async def test_a_leader_that_hangs_is_replaced_and_steps_back(
    centre: DataCentre, customers: list[Customer]
) -> None:
    query = "SELECT holder, epoch FROM leases WHERE name = 'reconciler'"
    (lease,) = await rows(centre, query)
    (leader,) = [worker for worker in centre.workers if lease["holder"] in worker.log.read_text()]

    leader.hold()
    try:
        async with asyncio.timeout(40):
            while (other := (await rows(centre, query))[0])["holder"] == lease["holder"]:
                await asyncio.sleep(0.1)
    finally:
        leader.go_on()

    await until(lambda: said(leader, "leadership.ended", lease["epoch"]))
    assert other["epoch"] > lease["epoch"]
    await until_in_order(centre, customers)


async def test_a_follower_of_a_run_goes_on_elsewhere_when_its_api_process_dies(
    centre: DataCentre, customers: list[Customer]
) -> None:
    host = next(iter(centre.agents))
    await centre.underlay.cut(centre.numbers[host])
    accepted = await centre.ask("POST", f"/apps/{customers[0].name}/restart")
    path = f"/runs/{accepted['run']}/events"
    following = asyncio.create_task(follow(centre, 0, path))
    await asyncio.sleep(1)

    centre.apis[0].kill()
    with pytest.raises(httpx.HTTPError):
        await following
    elsewhere = asyncio.create_task(follow(centre, 1, path))
    await centre.underlay.mend(centre.numbers[host])

    assert (await asyncio.wait_for(elsewhere, 60))[-1] == "run-succeeded"
    centre.apis[0].start()
    await centre.apis[0].until_it_answers()
    await customers[0].remove()  # it was started once more than it was released
    await customers[0].apply()


async def test_what_was_told_to_a_host_that_is_cut_off_is_worth_nothing_once_it_was_taken_back(
    centre: DataCentre, customers: list[Customer]
) -> None:
    spec = {"name": "slow", "services": {"it": {"image": "busybox:1", "command": ["sleep", "1000"]}}}
    for number in centre.numbers.values():
        await centre.underlay.cut(number)
    accepted = await centre.ask("POST", "/apps/slow/releases", json=spec)
    await asyncio.sleep(3)

    await centre.apis[1].client.post(f"/runs/{accepted['run']}/cancel")
    for number in centre.numbers.values():
        await centre.underlay.mend(number)
    run = await centre.run_of(accepted, 90)

    assert run["state"] == "cancelled"
    await rows(centre, f"DELETE FROM flow_runs WHERE id = '{run['id']}'")
    await until_in_order(centre, customers)


async def rows(centre: DataCentre, query: str) -> list[dict[str, Any]]:
    connection = await centre.database.connect("skep")
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def said(member: Member, event: str, epoch: int | None = None) -> bool:
    words = f'"event": "{event}"'
    return (words if epoch is None else f'"epoch": {epoch}, {words}') in member.log.read_text()


async def until(true: Callable[[], bool], timeout: float = 40) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it never became so"
        await asyncio.sleep(0.1)


async def follow(centre: DataCentre, api: int, path: str) -> list[str]:
    """The kinds of events of a run, to its end."""
    async with centre.apis[api].client.stream("GET", path, timeout=60) as answer:
        lines = [line async for line in answer.aiter_lines()]
    return [kind for line in lines if (kind := line.removeprefix("event: ")) not in (line, "end")]

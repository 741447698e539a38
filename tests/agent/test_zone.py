"""What an agent asks and tells control while workers and bus come and go."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest
from tests.agent.conftest import until
from tests.bus.lossy import LossyBus

from skep.agent.zone import ZoneEvents, ZoneSigns, ZoneSupplies
from skep.bus.client import CallClient, Pace
from skep.control.hosts.zone_desk import zone_desk
from skep.model.errors import NotFound, Unavailable
from skep.model.host import ContainerState, ContainerStatus, HostFacts, PortConfig
from skep.model.ids import ContainerId, HostName, NetworkId, PortId, ReplicaId, ZoneName
from skep.model.topology import HostLoad

ZONE = ZoneName("zone-1")
QUICK = Pace(first=0.05, longest=0.1, patience=0.3)
PORT = PortConfig(
    id=PortId("port"),
    network=NetworkId("network"),
    replica=ReplicaId("replica"),
    address=IPv4Address("10.1.0.5"),
    mac="02:00:00:00:00:05",
    app="shop",
)


class Worker:
    """Of control, what hosts ask and tell."""

    def __init__(self) -> None:
        self.news: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def port(self, port: PortId) -> PortConfig:
        if port != PORT.id:
            raise NotFound("The port is gone.")
        return PORT

    async def file(self, digest: str) -> bytes:
        return digest.encode() * 3

    async def certificate(self, digest: str) -> bytes:
        return f"certificate {digest}".encode()

    async def observed(self, status: ContainerStatus) -> None:
        await self.open.wait()
        self.news.append(f"{status.id} {status.state}")

    async def removed(self, container: ContainerId) -> None:
        self.news.append(f"{container} removed")

    async def heartbeat(
        self,
        host: HostName,
        *,
        facts: HostFacts | None = None,
        version: str | None = None,
        load: HostLoad | None = None,
    ) -> bool:
        self.news.append(f"{host} {version} {load.load if load else 0}")
        return host == "host-1"


@pytest.fixture
def bus() -> LossyBus:
    return LossyBus()


@pytest.fixture
async def calls(bus: LossyBus) -> AsyncIterator[CallClient]:
    async with CallClient(bus, "agent-1", pace=QUICK) as opened:
        yield opened


@pytest.fixture
async def events(calls: CallClient) -> AsyncIterator[ZoneEvents]:
    async with ZoneEvents(calls, ZONE) as opened:
        yield opened


def status(name: str, state: ContainerState) -> ContainerStatus:
    return ContainerStatus(id=ContainerId(name), replica=ReplicaId("replica"), state=state)


async def test_any_worker_of_the_zone_answers(bus: LossyBus, calls: CallClient) -> None:
    supplies, worker = ZoneSupplies(calls, ZONE), Worker()

    async with zone_desk(bus, ZONE, worker, worker, worker), zone_desk(bus, ZONE, worker, worker, worker):
        assert [await supplies.port(PORT.id) for _ in range(4)] == [PORT] * 4
        assert await supplies.file("ab") == b"ababab"
        with pytest.raises(NotFound, match="gone"):
            await supplies.port(PortId("other"))


async def test_a_zone_without_a_worker_is_unavailable(calls: CallClient) -> None:
    with pytest.raises(Unavailable, match="zone-1"):
        await ZoneSupplies(calls, ZONE).port(PORT.id)


async def test_news_waits_for_a_worker_and_only_the_latest_is_told(bus: LossyBus, events: ZoneEvents) -> None:
    worker = Worker()
    for state in (ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED):
        await events.observed(status("one", state))
        await asyncio.sleep(0.2)
    await events.observed(status("two", ContainerState.RUNNING))

    async with zone_desk(bus, ZONE, worker, worker, worker):
        await until(lambda: len(worker.news) >= 2)

    assert sorted(worker.news) == ["one exited", "two running"]


async def test_news_of_one_container_arrive_in_their_order(bus: LossyBus, events: ZoneEvents) -> None:
    worker = Worker()
    worker.open.clear()
    async with zone_desk(bus, ZONE, worker, worker, worker):
        await events.observed(status("one", ContainerState.RUNNING))
        await asyncio.sleep(0.1)
        await events.observed(status("one", ContainerState.EXITED))
        await events.removed(ContainerId("one"))
        await asyncio.sleep(0.1)
        worker.open.set()
        await until(lambda: len(worker.news) >= 2)

    assert worker.news == ["one running", "one removed"]


async def test_news_survive_a_bus_that_is_away(bus: LossyBus, events: ZoneEvents) -> None:
    worker = Worker()
    async with zone_desk(bus, ZONE, worker, worker, worker):
        bus.away = True
        await events.observed(status("one", ContainerState.RUNNING))
        await asyncio.sleep(0.5)
        bus.away = False

        await until(lambda: worker.news == ["one running"])


async def test_a_host_says_that_it_is_there_and_hears_whether_it_is_known(
    bus: LossyBus, calls: CallClient
) -> None:
    worker, signs = Worker(), ZoneSigns(calls, ZONE)
    async with zone_desk(bus, ZONE, worker, worker, worker):
        known = await signs.heartbeat(HostName("host-1"), version="1.2", load=HostLoad(load=0.5))
        unknown = await signs.heartbeat(HostName("host-2"))

    assert (known, unknown) == (True, False)
    assert worker.news == ["host-1 1.2 0.5", "host-2 None 0"]

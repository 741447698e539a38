"""Hosts that are silent, and that come back."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service

from skep.bus.bus import Event
from skep.control.hosts.liveness import Heartbeats, HostNews, LivenessWatch
from skep.model.errors import Exhausted, Unavailable
from skep.model.host import ExecSpec
from skep.model.ids import HostName
from skep.model.topology import HostLoad
from skep.model.views.apps import AppState, EventView
from skep.providers.simulated.host import FACTS
from skep.store import hosts
from skep.store.hosts import HostRow

FIRST, SECOND = HostName("host-1"), HostName("host-2")
TIMEOUT = 20.0


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2, zones=2) as made:
        yield made


class Watched:
    """Signs of life and the watch over them, with a clock that the test moves."""

    def __init__(self, cloud: Installation) -> None:
        self.cloud = cloud
        self.time = 0.0
        self.woken = 0
        news = HostNews(cloud.bus, cloud.clock)
        self.hearts = Heartbeats(cloud.database, news, self._wake, TIMEOUT)
        self.dying = Heartbeats(cloud.database, news, self._wake, -1.0)
        """Whose leases have expired as soon as they are given."""
        self.watch = LivenessWatch(cloud.database, cloud.directory, news, TIMEOUT, lambda: self.time)

    def _wake(self) -> None:
        self.woken += 1

    async def look_for(self, seconds: float) -> None:
        """Without a gap."""
        for _ in range(int(seconds / 2) + 1):
            await self.watch.look()
            self.time += 2


async def row(cloud: Installation, name: HostName) -> HostRow:
    async with cloud.database.read() as connection:
        found = await hosts.get(connection, name)
    assert found is not None
    return found


async def lose(cloud: Installation, name: HostName = SECOND) -> Watched:
    watched = Watched(cloud)
    await watched.dying.heartbeat(name)
    await watched.look_for(TIMEOUT)
    return watched


async def test_a_sign_of_life_is_what_the_host_says_of_itself(cloud: Installation) -> None:
    facts = msgspec.structs.replace(FACTS, cpus=64)

    known = await Watched(cloud).hearts.heartbeat(FIRST, facts=facts, version="1.2", load=HostLoad(load=0.5))

    found = await row(cloud, FIRST)
    assert known
    assert (found.cpus, found.version, found.load.load, found.state) == (64, "1.2", 0.5, "ready")
    assert not await Watched(cloud).hearts.heartbeat(HostName("unknown"))


async def test_a_silent_host_is_lost_and_the_others_are_not(cloud: Installation) -> None:
    watched = Watched(cloud)
    await watched.hearts.heartbeat(FIRST)
    await watched.dying.heartbeat(SECOND)

    await watched.look_for(TIMEOUT)

    assert [(await row(cloud, name)).state for name in (FIRST, SECOND)] == ["ready", "lost"]


async def test_who_has_not_watched_for_a_whole_timeout_judges_nobody(cloud: Installation) -> None:
    watched = Watched(cloud)
    await watched.dying.heartbeat(SECOND)

    await watched.look_for(TIMEOUT / 2)
    watched.time += TIMEOUT
    await watched.look_for(TIMEOUT / 2)

    assert (await row(cloud, SECOND)).state == "ready"
    await watched.look_for(TIMEOUT / 2)
    assert (await row(cloud, SECOND)).state == "lost"


async def test_what_a_lost_host_runs_is_unknown_and_never_taken_for_dead(cloud: Installation) -> None:
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, app(web=service(replicas=2))))
    await lose(cloud)

    views = {view.host: view for view in await cloud.control.replicas.list(cloud.admin, "shop")}
    (shown,) = await cloud.control.apps.list(cloud.admin)

    assert (views[FIRST].state, views[SECOND].state) == ("running", "unknown")
    assert "Host host-2 has been silent since" in views[SECOND].error
    assert (shown.state, shown.running) == (AppState.PARTIAL, 1)


async def test_nothing_new_is_placed_on_a_lost_host(cloud: Installation) -> None:
    await lose(cloud)

    await cloud.finish(await cloud.control.apps.apply(cloud.admin, app(web=service(replicas=4))))

    views = await cloud.control.replicas.list(cloud.admin, "shop")
    assert {view.host for view in views} == {FIRST}
    await lose(cloud, FIRST)
    with pytest.raises(Exhausted, match="of 2 hosts 2 are lost"):
        await cloud.control.apps.plan(cloud.admin, app("more", web=service()))


async def test_who_asks_a_lost_host_hears_since_when_it_is_silent(cloud: Installation) -> None:
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, app(web=service(replicas=2))))
    await lose(cloud)
    views = {view.host: view for view in await cloud.control.replicas.list(cloud.admin, "shop")}

    with pytest.raises(Unavailable, match=r"Host 'host-2' has been silent since .*: what it runs is unknown"):
        await cloud.control.replicas.exec(cloud.admin, "shop", views[SECOND].name, ExecSpec(args=("true",)))
    usage = await cloud.control.replicas.usage(cloud.admin)
    assert [item.replica for item in usage] == [f"shop/{views[FIRST].name}"]
    cloud.directory.remove(SECOND)
    with pytest.raises(Unavailable, match="silent since"):
        cloud.directory.on(SECOND)


async def test_a_host_that_is_back_is_ready_and_looked_at(cloud: Installation) -> None:
    watched = await lose(cloud)

    await watched.hearts.heartbeat(SECOND)
    await watched.hearts.heartbeat(SECOND)
    await watched.watch.look()

    assert (await row(cloud, SECOND)).state == "ready"
    assert watched.woken == 1
    assert await cloud.directory.answering(SECOND) is cloud.hosts[SECOND]


async def test_loss_and_return_are_told_once_to_whom_it_concerns(cloud: Installation) -> None:
    watched = Watched(cloud)
    found: list[Event] = []
    async with cloud.bus.subscribe(f"event.{cloud.admin.tenant}.host") as events:
        await watched.dying.heartbeat(SECOND)
        await watched.look_for(TIMEOUT * 2)
        await watched.hearts.heartbeat(SECOND)
        async for event in events:
            found.append(event)
            if len(found) == 2:
                break

    lost, back = (msgspec.json.decode(event.body, type=EventView) for event in found)
    assert (lost.kind, lost.name, lost.state) == ("host", "host-2", "lost")
    assert back.state == "ready"
    assert "and is back" in back.message


async def test_who_has_watched_all_the_time_finds_a_loss_at_once(cloud: Installation) -> None:
    watched = Watched(cloud)
    await watched.look_for(TIMEOUT)
    await watched.dying.heartbeat(SECOND)

    await watched.watch.look()

    assert (await row(cloud, SECOND)).state == "lost"

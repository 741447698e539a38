"""What a host remembers of its commands when its agent is killed, and whom it refuses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import NoneType
from typing import Literal, Protocol

import pytest
from tests.bus.lossy import LossyBus

from skep.agent.receipts import FENCES_KEPT, KEPT, SqliteReceipts
from skep.bus.bus import Message
from skep.bus.calls import NOTHING, Answer, Call, decode, encode
from skep.bus.client import CallClient, Pace
from skep.bus.methods import Methods
from skep.bus.server import CallServer, Received
from skep.bus.stamps import Stamp, leader, stamped
from skep.model.errors import Conflict, Stale

QUICK = Pace(first=0.05, longest=0.1, patience=5.0, patience_of_runs=5.0)
Point = Literal["before the receipt", "after the receipt", "before the record", "after the record"]
POINTS: list[Point] = ["before the receipt", "after the receipt", "before the record", "after the record"]
STEP = Stamp(run="run-1", step="start", epoch=2, attempt=2)
HONEY = {"jar": "honey"}


class Shelf(Protocol):
    async def put(self, jar: str) -> int: ...

    async def take(self, jar: str) -> None: ...


class RealShelf:
    """As ports are: putting what is there is success.  Outlives its agents, as containers do."""

    def __init__(self) -> None:
        self.jars: set[str] = set()
        self.done: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def put(self, jar: str) -> int:
        await self.open.wait()
        self.done.append(f"put {jar}")
        self.jars.add(jar)
        return len(self.jars)

    async def take(self, jar: str) -> None:
        self.done.append(f"take {jar}")
        self.jars.discard(jar)


class Mortal(SqliteReceipts):
    """Its process is killed at a point: whatever comes after it never happens."""

    def __init__(self, path: Path, point: Point | None = None) -> None:
        super().__init__(path, durable=False)
        self._point = point
        self.dead = asyncio.Event()

    async def receive(self, received: Received) -> Answer | None:
        await self._die_at("before the receipt")
        answer = await super().receive(received)
        await self._die_at("after the receipt")
        return answer

    async def answered(self, answer: Answer) -> None:
        await self._die_at("before the record")
        await super().answered(answer)
        await self._die_at("after the record")

    async def _die_at(self, point: Point) -> None:
        if point == self._point:
            self.dead.set()
            await asyncio.Event().wait()


@pytest.fixture
def bus() -> LossyBus:
    return LossyBus()


@pytest.fixture
async def client(bus: LossyBus) -> AsyncIterator[CallClient]:
    async with CallClient(bus, "worker-1", pace=QUICK) as opened:
        yield opened


@pytest.fixture
def shelf() -> RealShelf:
    return RealShelf()


@asynccontextmanager
async def agent(
    bus: LossyBus, shelf: RealShelf, path: Path, point: Point | None = None
) -> AsyncIterator[Mortal]:
    methods = Methods("1")
    methods.add("shelf", Shelf, shelf)
    receipts = Mortal(path, point)
    await receipts.__aenter__()
    try:
        async with CallServer(bus, "agent.host-1", methods, receipts):
            yield receipts
    finally:
        await receipts.abandon()


@pytest.mark.parametrize("point", POINTS)
async def test_a_command_survives_the_death_of_its_agent_at_any_point(
    point: Point, bus: LossyBus, client: CallClient, shelf: RealShelf, tmp_path: Path
) -> None:
    async with agent(bus, shelf, tmp_path / "receipts.db", point) as mortal:
        with stamped(STEP):
            asking = asyncio.create_task(client.tell("agent.host-1", "shelf.put", int, HONEY))
        await mortal.dead.wait()

    async with agent(bus, shelf, tmp_path / "receipts.db"):
        assert await asking == 1

    assert shelf.jars == {"honey"}
    assert len(shelf.done) == (2 if point == "before the record" else 1)


async def test_what_was_received_is_done_though_nobody_asks_any_more(
    bus: LossyBus, shelf: RealShelf, tmp_path: Path
) -> None:
    path = tmp_path / "receipts.db"
    async with CallClient(bus, "worker-1", pace=QUICK) as client:
        async with agent(bus, shelf, path, "after the receipt") as mortal:
            asking = asyncio.create_task(client.tell("agent.host-1", "shelf.put", int, HONEY))
            await mortal.dead.wait()
        bus.away = True  # the worker dies, too: it withdraws nothing
        asking.cancel()
        await asyncio.wait([asking])
    bus.away = False

    async with agent(bus, shelf, path) as receipts:
        await until_none(receipts)

    assert shelf.jars == {"honey"}


async def test_a_late_duplicate_gets_the_recorded_answer(
    bus: LossyBus, client: CallClient, shelf: RealShelf, tmp_path: Path
) -> None:
    async with agent(bus, shelf, tmp_path / "receipts.db"):
        await client.tell("agent.host-1", "shelf.put", int, HONEY)
        first = next(message for key, message in bus.sent if key == "agent.host-1.now")
        await client.tell("agent.host-1", "shelf.take", NoneType, HONEY)

        bus.sent.clear()
        await bus.send("agent.host-1", first)
        await asyncio.sleep(0.2)

    assert shelf.done == ["put honey", "take honey"]
    (answer,) = [decode(message.body, Answer) for key, message in bus.sent if key == "reply.worker-1"]
    assert (answer.id, answer.state, bytes(answer.result)) == (first.id, "done", encode(1))


@pytest.mark.parametrize(
    "older",
    [
        Stamp(run="run-1", step="start", epoch=1, attempt=9),
        Stamp(run="run-1", step="start", epoch=2, attempt=1),
    ],
)
async def test_an_older_try_is_refused_also_after_a_restart(
    older: Stamp, bus: LossyBus, client: CallClient, shelf: RealShelf, tmp_path: Path
) -> None:
    async with agent(bus, shelf, tmp_path / "receipts.db"):
        with stamped(STEP):
            await client.tell("agent.host-1", "shelf.put", int, HONEY)

    async with agent(bus, shelf, tmp_path / "receipts.db"):
        with stamped(older), pytest.raises(Stale, match="newer hands"):
            await client.tell("agent.host-1", "shelf.take", NoneType, HONEY)

    assert shelf.jars == {"honey"}


async def test_a_do_that_comes_after_its_undo_is_refused_until_the_next_round(
    bus: LossyBus, client: CallClient, shelf: RealShelf, tmp_path: Path
) -> None:
    undo = Stamp(run="run-1", step="start", epoch=2, undoing=True)
    async with agent(bus, shelf, tmp_path / "receipts.db"):
        with stamped(undo):
            await client.tell("agent.host-1", "shelf.take", NoneType, HONEY)

        with stamped(STEP), pytest.raises(Stale):
            await client.tell("agent.host-1", "shelf.put", int, HONEY)
        with stamped(Stamp(run="run-1", step="start", epoch=3, round=1)):
            await client.tell("agent.host-1", "shelf.put", int, HONEY)

    assert shelf.done == ["take honey", "put honey"]


async def test_an_undo_waits_for_the_end_of_the_do_that_is_under_way(
    bus: LossyBus, client: CallClient, shelf: RealShelf, tmp_path: Path
) -> None:
    shelf.open.clear()
    async with agent(bus, shelf, tmp_path / "receipts.db"):
        with stamped(STEP):
            asking = asyncio.create_task(client.tell("agent.host-1", "shelf.put", int, HONEY))
        await asyncio.sleep(0.1)
        with stamped(Stamp(run="run-1", step="start", epoch=3, undoing=True)):
            await client.tell("agent.host-1", "shelf.take", NoneType, HONEY)
        shelf.open.set()

        with pytest.raises(Stale):
            await asking

    assert shelf.jars == set()


async def test_a_reconciler_that_no_longer_leads_is_refused(
    bus: LossyBus, client: CallClient, shelf: RealShelf, tmp_path: Path
) -> None:
    async with agent(bus, shelf, tmp_path / "receipts.db"):
        with stamped(leader(5)):
            await client.tell("agent.host-1", "shelf.put", int, HONEY)

        with stamped(leader(4)), pytest.raises(Conflict):
            await client.tell("agent.host-1", "shelf.take", NoneType, HONEY)


async def test_two_messages_of_one_command_that_come_together_are_carried_out_once(
    bus: LossyBus, shelf: RealShelf, tmp_path: Path
) -> None:
    shelf.open.clear()
    async with agent(bus, shelf, tmp_path / "receipts.db"):
        for _ in range(5):
            await bus.send("agent.host-1", message_of("call-1"))
        await asyncio.sleep(0.1)
        shelf.open.set()
        await asyncio.sleep(0.1)

    assert shelf.done == ["put honey"]


async def test_old_answers_and_old_fences_are_forgotten_and_what_is_not_done_never(tmp_path: Path) -> None:
    now = 1_000_000.0
    async with SqliteReceipts(tmp_path / "receipts.db", now=lambda: now, durable=False) as receipts:
        await receipts.receive(received("done", STEP))
        await receipts.answered(Answer(id="done", version="1"))
        await receipts.receive(received("left"))
        recorded = await receipts.receive(received("done"))

        now += max(KEPT, FENCES_KEPT) + 1
        await receipts.prune()

        assert recorded == Answer(id="done", version="1", result=NOTHING)
        assert await receipts.receive(received("done", Stamp(run="run-1", step="start", epoch=1))) is None
        assert [left.call.id for left in await receipts.unanswered()] == ["left", "done"]


def received(identifier: str, stamp: Stamp | None = None) -> Received:
    call = Call(id=identifier, method="a.b", arguments=NOTHING, version="1", command=True, stamp=stamp)
    return Received(call, "reply.nobody")


def message_of(identifier: str) -> Message:
    call = {
        "id": identifier,
        "method": "shelf.put",
        "arguments": {"jar": "honey"},
        "version": "1",
        "command": True,
    }
    return Message(id=identifier, body=encode(call))


async def until_none(receipts: SqliteReceipts) -> None:
    async with asyncio.timeout(5):
        while await receipts.unanswered():
            await asyncio.sleep(0.01)

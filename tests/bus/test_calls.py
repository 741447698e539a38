"""Calls over a bus that loses, repeats and restarts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from types import NoneType
from typing import Protocol

import msgspec
import pytest
from tests.bus.lossy import LossyBus

from skep.bus.bus import Message
from skep.bus.calls import Answer, Call, decode, encode
from skep.bus.client import CallClient, Pace
from skep.bus.methods import Methods
from skep.bus.server import CallServer
from skep.flow import CommitFailed
from skep.model.errors import Conflict, HostFailure, NotFound, Unavailable, Unsupported
from skep.model.faults import Fault, error_of

QUICK = Pace(first=0.05, longest=0.1, patience=1.0, patience_of_runs=5.0)


class Parcel(msgspec.Struct, frozen=True):
    address: IPv4Address
    path: Path | None = None


class Desk(Protocol):
    async def weigh(self, parcel: Parcel, times: int = 1) -> dict[str, int]: ...

    async def where(self, parcel: Parcel) -> Path: ...

    async def refuse(self, kind: str) -> None: ...

    async def look_up(self) -> int: ...

    async def slow(self) -> int: ...

    async def talk(self, progress: Callable[[str], None] = ...) -> str: ...


class RealDesk:
    def __init__(self) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self.ended: list[str] = []

    async def weigh(self, parcel: Parcel, times: int = 1) -> dict[str, int]:
        self.calls += 1
        return {str(parcel.address): times}

    async def where(self, parcel: Parcel) -> Path:
        assert parcel.path is not None
        return parcel.path / "here"

    async def refuse(self, kind: str) -> None:
        if kind == "conflict":
            raise Conflict("The name is taken.", name="web")
        raise ZeroDivisionError("nothing by nothing")

    async def look_up(self) -> int:
        """The database is away for the first two times."""
        self.calls += 1
        if self.calls < 3:
            raise CommitFailed("the database is being restarted")
        return self.calls

    async def slow(self) -> int:
        self.calls += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        return 7

    async def talk(self, progress: Callable[[str], None] = lambda line: None) -> str:
        for line in ("one", "two"):
            progress(line)
            await asyncio.sleep(0.15)
        return "done"


PARCEL = Parcel(IPv4Address("10.1.0.5"), Path("/somewhere"))


@pytest.fixture
def bus() -> LossyBus:
    return LossyBus()


@pytest.fixture
def desk() -> RealDesk:
    return RealDesk()


@asynccontextmanager
async def serving(bus: LossyBus, desk: RealDesk, abandoned: float = 60.0) -> AsyncIterator[CallServer]:
    methods = Methods("1.1")
    methods.add("desk", Desk, desk)
    async with CallServer(bus, "agent.host-1", methods, abandoned=abandoned) as server:
        yield server


@pytest.fixture
async def client(bus: LossyBus) -> AsyncIterator[CallClient]:
    async with CallClient(bus, "worker-1", pace=QUICK, version="1.0") as opened:
        yield opened


async def test_arguments_and_results_keep_their_types(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    async with serving(bus, desk):
        weight = await client.ask(
            "agent.host-1", "desk.weigh", dict[str, int], {"parcel": PARCEL, "times": 3}
        )
        place = await client.ask("agent.host-1", "desk.where", Path, {"parcel": PARCEL})

    assert weight == {"10.1.0.5": 3}
    assert place == Path("/somewhere/here")


async def test_arguments_that_are_left_out_have_their_defaults(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    async with serving(bus, desk):
        weight = await client.ask(
            "agent.host-1", "desk.weigh", dict[str, int], {"parcel": Parcel(PARCEL.address), "times": None}
        )

    assert weight == {"10.1.0.5": 1}


async def test_errors_arrive_as_what_they_were(bus: LossyBus, desk: RealDesk, client: CallClient) -> None:
    async with serving(bus, desk):
        with pytest.raises(Conflict, match="taken") as caught:
            await client.tell("agent.host-1", "desk.refuse", NoneType, {"kind": "conflict"})
        with pytest.raises(HostFailure, match="ZeroDivisionError: nothing by nothing"):
            await client.tell("agent.host-1", "desk.refuse", NoneType, {"kind": "defect"})

    assert caught.value.details == {"name": "web"}


async def test_a_question_waits_while_the_database_is_away(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    async with serving(bus, desk):
        assert await client.ask("agent.host-1", "desk.look_up", int, {}) == 3


async def test_a_command_that_the_database_failed_may_be_given_again(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    async with serving(bus, desk):
        with pytest.raises(Unavailable, match="being restarted"):
            await client.tell("agent.host-1", "desk.look_up", int, {})

    assert desk.calls == 1


async def test_lost_commands_and_lost_replies_only_cost_time(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    lost = {"agent.host-1.now": 2, "reply.worker-1": 2}

    def lose(key: str, message: Message) -> bool:
        lost[key] -= 1
        return lost[key] >= 0

    bus.lose = lose
    async with serving(bus, desk):
        weight = await client.tell("agent.host-1", "desk.weigh", dict[str, int], {"parcel": PARCEL})

    assert weight == {"10.1.0.5": 1}
    assert max(lost.values()) < 0


async def test_a_bus_that_is_away_for_a_while_is_waited_for(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    bus.away = True
    async with serving(bus, desk):
        asking = asyncio.create_task(
            client.tell("agent.host-1", "desk.weigh", dict[str, int], {"parcel": PARCEL})
        )
        await asyncio.sleep(0.2)
        bus.away = False

        assert await asking == {"10.1.0.5": 1}


async def test_who_asks_again_joins_what_goes_on(bus: LossyBus, desk: RealDesk, client: CallClient) -> None:
    async with serving(bus, desk):
        asking = asyncio.create_task(client.tell("agent.host-1", "desk.slow", int, {}))
        await asyncio.sleep(1.5)  # longer than the patience: signs of life count
        desk.go.set()

        assert await asking == 7

    assert desk.calls == 1


async def test_nobody_who_answers_is_unavailable(bus: LossyBus, client: CallClient) -> None:
    with pytest.raises(Unavailable, match="Host 'host-1' does not answer"):
        await client.ask("agent.host-1", "desk.slow", int, {})


async def test_who_is_no_more_is_not_waited_for(bus: LossyBus, desk: RealDesk, client: CallClient) -> None:
    async with serving(bus, desk):
        there = asyncio.create_task(client.tell("agent.host-1", "desk.slow", int, {}))
        elsewhere = asyncio.create_task(client.ask("agent.host-2", "desk.slow", int, {}))
        await asyncio.sleep(0.05)

        client.give_up("agent.host-1")

        with pytest.raises(Unavailable, match="Host 'host-1' is no more"):
            await there
        assert not elsewhere.done()
        elsewhere.cancel()


async def test_a_call_nobody_waits_for_any_longer_ends(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    async with serving(bus, desk):
        asking = asyncio.create_task(client.tell("agent.host-1", "desk.slow", int, {}))
        await asyncio.sleep(0.05)

        asking.cancel()
        await asyncio.sleep(0.05)

        assert desk.ended == ["cancelled"]


async def test_a_question_whose_asker_died_ends(bus: LossyBus, desk: RealDesk) -> None:
    async with serving(bus, desk, abandoned=0.3):
        async with CallClient(bus, "worker-2", pace=QUICK) as mortal:
            asking = asyncio.create_task(mortal.ask("agent.host-1", "desk.slow", int, {}))
            await asyncio.sleep(0.5)
            still = list(desk.ended)
            bus.away = True
            asking.cancel()
            await asyncio.wait([asking])
        await asyncio.sleep(0.8)

        assert (still, desk.ended) == ([], ["cancelled"])


async def test_progress_is_told_while_the_call_goes_on(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    lines: list[str] = []

    async with serving(bus, desk):
        word = await client.tell("agent.host-1", "desk.talk", str, {}, lines.append)

    assert (word, lines) == ("done", ["one", "two"])


async def test_what_another_release_does_not_know_is_named_with_both_releases(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    async with serving(bus, desk):
        for method, arguments in (
            ("desk.fold", {}),
            ("desk.weigh", {"parcel": PARCEL, "gently": True}),
            ("desk.weigh", {"parcel": 7}),
        ):
            with pytest.raises(Unsupported, match=f"skep 1.1 does not know {method} as skep 1.0"):
                await client.ask("agent.host-1", method, int, arguments)
        with pytest.raises(Unsupported, match=r"skep 1\.1 answered desk\.weigh"):
            await client.ask("agent.host-1", "desk.weigh", int, {"parcel": PARCEL})


async def test_unknown_fields_of_a_newer_release_are_ignored(
    bus: LossyBus, desk: RealDesk, client: CallClient
) -> None:
    class Newer(msgspec.Struct):
        address: IPv4Address
        ribbon: str = "red"

    async with serving(bus, desk):
        weight = await client.ask(
            "agent.host-1", "desk.weigh", dict[str, int], {"parcel": Newer(IPv4Address("10.1.0.5"))}
        )

    assert weight == {"10.1.0.5": 1}


def test_the_messages_of_a_newer_release_can_be_read() -> None:
    call = {"id": "1", "method": "a.b", "arguments": {}, "version": "2", "colour": "red"}
    answer = {"id": "1", "version": "2", "fault": {"code": "not-found", "message": "Gone.", "hint": "Look."}}

    assert decode(encode(call), Call).method == "a.b"
    assert decode(encode(answer), Answer).fault == Fault(code=NotFound.code, message="Gone.")


def test_an_error_kind_of_a_newer_release_is_a_failure_of_its_host() -> None:
    assert isinstance(error_of(Fault(code="melted", message="Too hot.")), HostFailure)

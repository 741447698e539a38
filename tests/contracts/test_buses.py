"""The promises of `bus.Bus`, in one process and over a real RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.bus.broker import Broker
from tests.bus.inbox import Inbox, letter

from skep.bus.backlog import WAITING
from skep.bus.bus import Bus, Depth, Event, Message, Redelivery
from skep.bus.inprocess import InProcessBus
from skep.bus.rabbitmq import RabbitMqBus
from skep.model.errors import NotFound, Unavailable

QUICK = Redelivery(attempts=3, rest=0.01)


async def take(events: AsyncIterator[Event], count: int) -> list[bytes]:
    async with asyncio.timeout(10):
        return [(await anext(events)).body for _ in range(count)]


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.02)


class BusContract:
    async def test_a_message_arrives_as_it_was_sent(self, bus: Bus, key: str) -> None:
        inbox = Inbox()

        async with bus.serve(key, inbox.take):
            await bus.send(key, letter("m-1", b"\x00body", lifetime=60))

            assert await inbox.has(1) == [letter("m-1", b"\x00body", lifetime=60)]

    async def test_what_is_sent_while_nobody_serves_arrives_later(self, bus: Bus, key: str) -> None:
        inbox = Inbox()
        async with bus.serve(key, Inbox().take):
            pass
        await bus.send(key, letter())

        async with bus.serve(key, inbox.take):
            await inbox.has(1)
            await asyncio.sleep(0.2)

        assert inbox.ids == ["m-1"]

    async def test_a_declared_queue_keeps_what_comes_before_a_server(self, bus: Bus, key: str) -> None:
        inbox = Inbox()
        await bus.declare(key)
        await bus.declare(key)
        await bus.send(key, letter())

        async with bus.serve(key, inbox.take):
            assert (await inbox.has(1))[0].id == "m-1"

    async def test_who_sends_where_nobody_ever_served_is_told(self, bus: Bus, key: str) -> None:
        with pytest.raises(NotFound, match=key):
            await bus.send(key, letter())

    async def test_a_queue_that_is_not_durable_goes_with_its_server(self, bus: Bus, key: str) -> None:
        inbox = Inbox()
        async with bus.serve(key, inbox.take, durable=False):
            await bus.send(key, letter())
            await inbox.has(1)

        async def gone() -> bool:
            try:
                await bus.send(key, letter())
            except NotFound:
                return True
            return False

        await until(gone)

    async def test_what_the_handler_refuses_comes_again(self, bus: Bus, key: str) -> None:
        inbox = Inbox(refuse=1)

        async with bus.serve(key, inbox.take):
            await bus.send(key, letter())
            await inbox.has(2)
            await asyncio.sleep(0.2)

        assert [message.attempt for message in inbox.messages] == [1, 2]
        assert (await bus.depths([key]))[key].waiting == 0

    async def test_what_is_refused_too_often_is_a_dead_letter(self, bus: Bus, key: str) -> None:
        inbox = Inbox(refuse=None)

        async with bus.serve(key, inbox.take):
            await bus.send(key, letter("poison", b"bad"))
            await inbox.has(QUICK.attempts)

            async def dead() -> bool:
                return any(found.key == key for found in await bus.dead())

            await until(dead)

        assert [message.attempt for message in inbox.messages] == [1, 2, 3]
        (found,) = [found for found in await bus.dead() if found.key == key]
        assert (found.message.id, found.message.body, found.at > 0) == ("poison", b"bad", True)
        assert len([found for found in await bus.dead() if found.key == key]) == 1

    async def test_a_message_that_is_refused_holds_up_no_other(self, bus: Bus, key: str) -> None:
        good: list[str] = []

        async def handle(message: Message) -> None:
            if message.id == "poison":
                raise ValueError("bad")
            good.append(message.id)

        async with bus.serve(key, handle, at_once=2):
            for name in ("poison", "a", "b", "c"):
                await bus.send(key, letter(name))

            async def all_came() -> bool:
                return len(good) == 3

            await until(all_came)

    async def test_two_servers_share_the_messages(self, bus: Bus, key: str) -> None:
        one, two = Inbox(), Inbox()

        async with bus.serve(key, one.take, at_once=1), bus.serve(key, two.take, at_once=1):
            await asyncio.gather(*(bus.send(key, letter(f"m-{number}")) for number in range(40)))

            async def all_came() -> bool:
                return len(one.ids) + len(two.ids) == 40

            await until(all_came)
            await asyncio.sleep(0.1)

        assert sorted(one.ids + two.ids) == sorted(f"m-{number}" for number in range(40))
        assert one.ids
        assert two.ids

    async def test_no_more_are_with_the_handler_than_asked(self, bus: Bus, key: str) -> None:
        now, most = 0, 0

        async def handle(_message: Message) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1

        async with bus.serve(key, handle, at_once=3):
            for number in range(12):
                await bus.send(key, letter(f"m-{number}"))
            await asyncio.sleep(0.5)

        assert most == 3

    async def test_what_outlives_its_lifetime_is_not_delivered_and_no_dead_letter(
        self, bus: Bus, key: str
    ) -> None:
        inbox = Inbox()
        await bus.declare(key)
        await bus.send(key, letter("late", lifetime=0.1))
        await bus.send(key, letter("in-time", lifetime=60))
        await asyncio.sleep(0.3)

        async with bus.serve(key, inbox.take):
            await inbox.has(1)
            await asyncio.sleep(0.2)

        assert inbox.ids == ["in-time"]
        assert all(found.key != key for found in await bus.dead())

    async def test_what_a_server_had_when_it_died_comes_to_the_next(self, bus: Bus, key: str) -> None:
        taken = asyncio.Event()
        inbox = Inbox()

        async def hang(_message: Message) -> None:
            taken.set()
            await asyncio.Event().wait()

        async with bus.serve(key, hang):
            await bus.send(key, letter())
            await asyncio.wait_for(taken.wait(), 10)

        async with bus.serve(key, inbox.take):
            (message,) = await inbox.has(1)

        assert (message.id, message.attempt) == ("m-1", 2)

    async def test_a_dropped_queue_is_gone_with_what_was_in_it(self, bus: Bus, key: str) -> None:
        await bus.declare(key)
        await bus.send(key, letter())

        await bus.drop(key)
        await bus.drop(key)

        with pytest.raises(NotFound):
            await bus.send(key, letter())
        inbox = Inbox()
        async with bus.serve(key, inbox.take):
            await asyncio.sleep(0.2)
        assert inbox.ids == []

    async def test_who_serves_a_queue_that_is_dropped_gets_what_comes_afterwards(
        self, bus: Bus, key: str
    ) -> None:
        inbox = Inbox()

        async with bus.serve(key, inbox.take):
            await bus.drop(key)

            async def sent() -> bool:
                try:
                    await bus.send(key, letter())
                except (NotFound, Unavailable):  # gone, or going at that moment
                    return False
                return True

            await until(sent)
            await inbox.has(1)

    async def test_depths_say_what_waits_and_who_serves(self, bus: Bus, key: str) -> None:
        await bus.declare(key)
        await bus.send(key, letter("a"))
        await bus.send(key, letter("b"))

        before = await bus.depths([key, f"{key}.absent"])
        inbox = Inbox()
        async with bus.serve(key, inbox.take):
            await inbox.has(2)

            async def settled() -> bool:
                return await bus.depths([key]) == {key: Depth(0, 1)}

            await until(settled)

        assert before == {key: Depth(2, 0)}

    async def test_listeners_hear_what_is_published_after_they_came(self, bus: Bus, key: str) -> None:
        bus.publish(f"event.{key}", b"0")
        await asyncio.sleep(0.2)

        async with bus.subscribe(f"event.{key}") as events:
            bus.publish(f"event.{key}", b"1")
            bus.publish(f"event.{key}", b"2")

            assert await take(events, 2) == [b"1", b"2"]

    async def test_a_subscription_takes_whole_words(self, bus: Bus, key: str) -> None:
        async with bus.subscribe(f"event.{key}") as events:
            for number, name in enumerate([f"event.{key}x", "event", f"other.{key}", f"event.{key}"]):
                bus.publish(name, str(number).encode())
            bus.publish(f"event.{key}.run", b"4")

            assert await take(events, 2) == [b"3", b"4"]

    async def test_every_listener_gets_its_own_copy(self, bus: Bus, key: str) -> None:
        async with bus.subscribe(key) as one, bus.subscribe(key) as two:
            bus.publish(f"{key}.b", b"7")

            assert (await take(one, 1), await take(two, 1)) == ([b"7"], [b"7"])

    async def test_a_slow_listener_loses_the_oldest_and_stops_nobody(self, bus: Bus, key: str) -> None:
        async with bus.subscribe(key) as slow, bus.subscribe(key) as quick:
            for number in range(WAITING + 200):
                bus.publish(key, str(number).encode())
                if number % 100 == 99:
                    await take(quick, 100)
            await asyncio.sleep(0.2)

            assert await take(slow, 2) == [b"200", b"201"]


class TestInProcess(BusContract):
    @pytest.fixture
    def bus(self) -> Bus:
        return InProcessBus(QUICK)


class TestRabbitMq(BusContract):
    @pytest.fixture
    async def bus(self, broker: Broker) -> AsyncIterator[Bus]:
        async with RabbitMqBus(broker.url, redelivery=QUICK, settling=0) as bus:
            yield bus

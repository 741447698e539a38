"""Events within one process."""

import asyncio
from collections.abc import AsyncIterator

from skep.bus.inprocess import WAITING, InProcessBus


async def take(messages: AsyncIterator[int], count: int) -> list[int]:
    async with asyncio.timeout(1):
        return [await anext(messages) for _ in range(count)]


async def test_a_subscriber_hears_what_is_published_after_it_came() -> None:
    bus = InProcessBus[int]()
    bus.publish("event.a", 0)

    async with bus.subscribe("event.a") as messages:
        bus.publish("event.a", 1)
        bus.publish("event.a", 2)

        assert await take(messages, 2) == [1, 2]


async def test_a_subscription_takes_whole_words() -> None:
    bus = InProcessBus[int]()

    async with bus.subscribe("event.ten") as messages:
        for number, key in enumerate(["event.tenant", "event", "other.ten", "event.ten", "event.ten.run"]):
            bus.publish(key, number)

        assert await take(messages, 2) == [3, 4]


async def test_every_subscriber_gets_its_own_copy() -> None:
    bus = InProcessBus[int]()

    async with bus.subscribe("a") as one, bus.subscribe("a") as two:
        bus.publish("a.b", 7)

        assert (await take(one, 1), await take(two, 1)) == ([7], [7])


async def test_a_slow_subscriber_loses_the_oldest_and_stops_nobody() -> None:
    bus = InProcessBus[int]()

    async with bus.subscribe("a") as messages:
        for number in range(WAITING + 5):
            bus.publish("a", number)

        assert await take(messages, 3) == [5, 6, 7]


async def test_who_leaves_is_forgotten() -> None:
    bus = InProcessBus[int]()
    async with bus.subscribe("a"):
        pass

    bus.publish("a", 1)

    assert not vars(bus)["_queues"]

"""Readings that share."""

import asyncio
from collections.abc import Collection

import pytest

from skep.control.telling.gathering import Gathering


class Slow:
    """Reads one after the other, each in its time."""

    def __init__(self) -> None:
        self.read: list[set[str]] = []
        self.go = asyncio.Event()
        self.fails = False

    async def __call__(self, keys: Collection[str]) -> dict[str, int]:
        self.read.append(set(keys))
        await self.go.wait()
        if self.fails:
            raise ValueError("away")
        return {key: len(self.read) for key in keys if key != "gone"}


async def test_what_is_asked_for_meanwhile_is_read_together_next() -> None:
    slow = Slow()
    gathering: Gathering[str, int] = Gathering(slow)

    first = asyncio.create_task(gathering.of(["a"]))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(gathering.of(keys)) for keys in (["a"], ["b", "gone"], ["a"])]
    await asyncio.sleep(0.01)
    slow.go.set()

    assert await first == {"a": 1}
    assert await asyncio.gather(*others) == [{"a": 2}, {"b": 2}, {"a": 2}]
    assert slow.read == [{"a"}, {"a", "b", "gone"}]


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    slow = Slow()
    gathering: Gathering[str, int] = Gathering(slow)
    one, other = asyncio.create_task(gathering.of(["a"])), asyncio.create_task(gathering.of(["b"]))
    await asyncio.sleep(0.01)

    one.cancel()
    slow.go.set()

    assert await other == {"b": 1}


async def test_a_reading_that_fails_fails_for_all_who_asked_and_the_next_one_is_tried() -> None:
    slow = Slow()
    slow.fails = True
    slow.go.set()
    gathering: Gathering[str, int] = Gathering(slow)

    for _ in range(2):
        with pytest.raises(ValueError, match="away"):
            await gathering.of(["a"])

    assert len(slow.read) == 2


async def test_nothing_is_read_for_nothing() -> None:
    slow = Slow()

    assert await Gathering(slow).of([]) == {}
    assert slow.read == []

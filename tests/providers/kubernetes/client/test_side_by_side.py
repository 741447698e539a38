"""Requests at the same time end together."""

import asyncio

import pytest

from skep.providers.kubernetes.client.side_by_side import side_by_side


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_answers_come_in_the_order_of_the_questions() -> None:
    assert await side_by_side(answer(1), answer(2)) == [1, 2]


async def test_the_first_error_ends_the_others_before_it_is_raised() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("slow")

    async def wrong() -> None:
        await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ValueError):
        await side_by_side(slow(), wrong())
    assert ended == ["slow"]

"""Several requests at the same time, of which none outlives who asked."""

import asyncio
from collections.abc import Awaitable
from typing import Any


async def side_by_side(*asked: Awaitable[Any]) -> list[Any]:
    """What all of them answer.  The first error ends the others, and is raised once they have ended."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""What was done is known here, too, when it is answered."""

import asyncio
from collections.abc import Callable
from typing import Any

from skep.model.errors import Unavailable
from skep.providers.kubernetes.client.watching import Watched

WITHIN = 20.0
"""Seconds in which the watch tells of what was done."""


async def heard(watched: Watched[Any], holds: Callable[[], bool], what: str = "claims") -> None:
    """Raises Unavailable: nothing is told of it."""
    try:
        async with asyncio.timeout(WITHIN):
            await watched.until(holds)
    except TimeoutError:
        raise Unavailable(f"The cluster does not tell what becomes of its {what}.") from None

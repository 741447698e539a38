"""Readings that share: what is asked for while another reading is under way is read together, next.

A hundred replicas that are plugged into a network at the same time each want to know who is on it: that is
a few readings, not a hundred, each of a hundred rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

K = TypeVar("K", bound=str)
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """`read` answers what there is of many keys."""

    def __init__(self, read: Callable[[Collection[K]], Awaitable[dict[K, V]]]) -> None:
        self._read = read
        self._turn = asyncio.Lock()
        self._keys: set[K] = set()
        self._next: asyncio.Task[dict[K, V]] | None = None

    async def of(self, keys: Collection[K]) -> dict[K, V]:
        """By a reading that begins after this call.  Raises what that raises."""
        if not keys:
            return {}
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._begin(), name="gathering")
        self._keys.update(keys)
        found = await asyncio.shield(self._next)
        return {key: found[key] for key in keys if key in found}

    async def _begin(self) -> dict[K, V]:
        async with self._turn:
            keys, self._keys, self._next = self._keys, set(), None
            return await self._read(keys)

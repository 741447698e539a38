"""What a flow acts on, as a trial sees it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from skep.flow.storage.database import Database


class World(Protocol):
    """What a flow acts on."""

    async def attach(self, database: Database) -> None:
        """Called each time a database is opened, also after a crash: make the tables that steps write to."""

    def environment(self, route: str) -> object:
        """As `FlowEngine` asks for it."""

    async def snapshot(self) -> object:
        """The state of the world: equal snapshots are equal worlds.  Without times, attempts and the like."""


Worlds = Callable[[], AbstractAsyncContextManager[World]]
"""Opens a fresh world, and clears it away."""


def worlds_of(make: Callable[[], World | AbstractAsyncContextManager[World]]) -> Worlds:
    """Worlds from whatever makes one, or makes something that is opened with `async with` to get one."""

    @asynccontextmanager
    async def fresh() -> AsyncIterator[World]:
        made = make()
        if isinstance(made, AbstractAsyncContextManager):
            async with made as world:
                yield world
        else:
            yield made

    return fresh


async def look(world: World, url: str) -> object:
    """The state of the world, with a database that is open."""
    database = await Database.open(url, durable=False)
    try:
        await world.attach(database)
        return await world.snapshot()
    finally:
        await database.close()

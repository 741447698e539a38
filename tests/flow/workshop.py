"""Steps for tests: each keeps book of what it did, and can be told to fail, wait or return garbage."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NewType, cast

import msgspec
from sqlalchemy import text

from skep.flow import Context, Database, PlaceGone, Registry, Retry, step

Name = NewType("Name", str)
Count = NewType("Count", int)


class Place(msgspec.Struct, frozen=True):
    host: str
    port: int = 0
    name: Name = Name("x")


class Workshop:
    """The environment of the steps: `made` is the state of the world, `log` the calls in order."""

    def __init__(self) -> None:
        self.made: set[str] = set()
        self.log: list[str] = []
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, Callable[[], Awaitable[object]]] = {}
        self.routes: list[str] = []
        self.gone: set[str] = set()
        """Routes that lead nowhere any more, for ever."""
        self.running = 0
        self.most_running = 0

    def environment(self, route: str) -> "Workshop":
        if route in self.gone:
            raise PlaceGone(f"{route} is no more")
        if route.startswith("agent.") and route != "agent.host1":
            raise LookupError(f"no agent answers to {route}")
        self.routes.append(route)
        return self

    async def attach(self, database: Database) -> None:
        self.database = database
        await database.write(
            lambda connection: connection.execute(
                text("CREATE TABLE IF NOT EXISTS things(name TEXT PRIMARY KEY)")
            )
        )

    async def things(self) -> list[str]:
        async with self.database.read() as connection:
            found = await connection.execute(text("SELECT name FROM things ORDER BY name"))
            return [row.name for row in found]

    async def snapshot(self) -> object:
        return sorted(self.made), await self.things()

    def fail(self, name: str, error: BaseException, times: int = 1_000_000) -> None:
        left = [times]

        async def fault() -> None:
            if left[0] > 0:
                left[0] -= 1
                raise error

        self.faults[name] = fault

    def block(self, name: str) -> asyncio.Event:
        """The step waits for the event."""
        event = asyncio.Event()
        self.faults[name] = event.wait
        return event

    async def enter(self, what: str) -> None:
        self.log.append(what)
        self.calls[what] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            if what in self.faults:
                await self.faults[what]()
        finally:
            self.running -= 1


@step
async def make(cx: Context[Workshop], name: str) -> str:
    cx.env.made.add(name)
    await cx.env.enter(name)
    return name


@make.undo
async def unmake(cx: Context[Workshop], name: str) -> None:
    await cx.env.enter(f"undo {name}")
    cx.env.made.discard(name)


@step
async def leave(cx: Context[Workshop], name: str) -> None:
    """Has an effect and no undo."""
    cx.env.made.add(name)


@step
async def place(cx: Context[Workshop], name: Name) -> Place:
    await cx.env.enter(name)
    return Place("host1", 80, name)


@step
async def visit(cx: Context[Workshop], name: str, host: str, port: int = 1) -> float:
    cx.progress(f"visiting {host}")
    await cx.env.enter(name)
    return float(port)


@step
async def gather(cx: Context[Workshop], names: list[str], size: int | None = None) -> dict[str, int]:
    await cx.env.enter("gather")
    return dict.fromkeys(names, size or 0)


@step(kind="transactional")
async def enlist(cx: Context[Workshop], name: str) -> Count:
    await cx.tx.execute(text("INSERT INTO things(name) VALUES (:name)"), {"name": name})
    await cx.env.enter(name)
    return Count(len(name))


@enlist.undo
async def delist(cx: Context[Workshop], name: str) -> None:
    await cx.env.enter(f"undo {name}")
    found = await cx.tx.execute(text("DELETE FROM things WHERE name = :name"), {"name": name})
    if found.rowcount != 1:
        raise AssertionError(f"{name} was undone {found.rowcount} times")


@step(kind="at-most-once")
async def launch(cx: Context[Workshop], name: str) -> str:
    cx.env.made.add(name)
    await cx.env.enter(name)
    return name


@launch.undo
async def land(cx: Context[Workshop], name: str) -> None:
    await cx.env.enter(f"undo {name}")
    cx.env.made.discard(name)


@step(retry=2, timeout=0.05)
async def flaky(cx: Context[Workshop], name: str) -> str:
    await cx.env.enter(name)
    return f"{name}{cx.attempt}"


@step
async def lie(cx: Context[Workshop], name: str) -> int:
    await cx.env.enter(name)
    return cast("int", "not a number")


@step(kind="idempotent", name="wait", timeout=0.2)
async def wait_for(cx: Context[Workshop], name: str) -> None:
    await cx.env.enter(name)
    if name not in cx.env.made:
        raise Retry(f"{name} is not there", after=0.01)


@step(heartbeat=0.1)
async def beat(cx: Context[Workshop], name: str, times: int) -> None:
    """Works for `times` times 50 ms and gives signs of life."""
    for _ in range(times):
        cx.heartbeat()
        await cx.env.enter(name)
        await asyncio.sleep(0.05)


@step
async def big(cx: Context[Workshop], size: int) -> str:
    return "x" * size


@step
async def measure(cx: Context[Workshop], text: str) -> int:
    return len(text)


def registry() -> Registry:
    from tests.flow import workshop

    registry = Registry()
    registry.add_module(workshop, "w")
    registry.add_type(Name, Count, Place)
    return registry

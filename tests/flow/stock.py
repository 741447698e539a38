"""A world that knows how often each effect has happened: for proofs that it is as often as promised."""

from collections import Counter

from sqlalchemy import text

from skep.flow import Context, Database, Registry, step

TABLES = "CREATE TABLE IF NOT EXISTS stock(name TEXT PRIMARY KEY)"


class Stock:
    """Effects are named after their steps."""

    def __init__(self) -> None:
        self.keys: dict[str, set[str]] = {}
        """By idempotent step: under which keys its effect was asked for and not taken back."""
        self.launches: Counter[str] = Counter()
        """By at-most-once step: how often it was called."""
        self.up: set[str] = set()
        """Those of which the effect is there."""
        self.overlaps: list[str] = []
        """Steps that ran twice at the same time, or were undone while they ran."""
        self._inside: set[str] = set()

    async def attach(self, database: Database) -> None:
        self._database = database
        self._inside.clear()
        await database.write(lambda connection: connection.exec_driver_sql(TABLES))

    def environment(self, _route: str) -> "Stock":
        return self

    async def snapshot(self) -> object:
        return sorted(await self.effects())

    async def effects(self) -> set[str]:
        """The names of all steps whose effect is there."""
        async with self._database.read() as connection:
            rows = await connection.execute(text("SELECT name FROM stock"))
            return {row.name for row in rows} | self.keys.keys() | self.up

    def clear_away(self, name: str) -> None:
        """As a person would who was asked about it."""
        self.up.discard(name)

    def enter(self, name: str) -> None:
        if name in self._inside:
            self.overlaps.append(name)
        self._inside.add(name)

    def leave(self, name: str) -> None:
        self._inside.discard(name)


@step
async def put(cx: Context[Stock], text: str = "") -> str:
    """Idempotent by its key."""
    cx.env.enter(cx.step)
    cx.env.keys.setdefault(cx.step, set()).add(cx.key)
    cx.env.leave(cx.step)
    return cx.step


@put.undo
async def take(cx: Context[Stock], text: str = "") -> None:
    cx.env.enter(cx.step)
    cx.env.keys.pop(cx.step, None)
    cx.env.leave(cx.step)


@step(kind="transactional")
async def enter(cx: Context[Stock], text: str = "") -> str:
    """A second time would be an error."""
    await cx.tx.exec_driver_sql(f"INSERT INTO stock VALUES ('{cx.step}')")
    return cx.step


@enter.undo
async def strike(cx: Context[Stock], text: str = "") -> None:
    found = await cx.tx.exec_driver_sql(f"DELETE FROM stock WHERE name = '{cx.step}'")
    if found.rowcount != 1:
        raise AssertionError(f"{cx.step} was undone {found.rowcount} times")


@step(kind="at-most-once")
async def launch(cx: Context[Stock], text: str = "") -> str:
    cx.env.launches[cx.step] += 1
    cx.env.up.add(cx.step)
    return cx.step


@launch.undo
async def land(cx: Context[Stock], text: str = "") -> None:
    cx.env.up.discard(cx.step)


def registry() -> Registry:
    registry = Registry()
    for each in (put, enter, launch):
        registry.add_step(each, each.name)
    return registry

"""Workers of one database when something goes wrong between them: leases, adoptions, orders, refusals."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import make_url, text, update
from sqlalchemy.ext.asyncio import create_async_engine
from tests.flow.rows import a_run
from tests.flow.workshop import Workshop

from skep.flow import CommitFailed, Database, FlowEngine, Registry, RunId, RunState
from skep.flow.definition.graph import Graph
from skep.flow.definition.plan import Plan
from skep.flow.errors import Fenced, InputError
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.execution import Execution
from skep.flow.execution.quarantine import Quarantine
from skep.flow.storage import inbox, tables
from skep.flow.storage.shared import transact

LEASE = 0.6
CHAIN = """
flow: chain
input: {name: str}
steps:
  a: {use: w.make, with: {name: "${input.name}-a"}}
  b: {use: w.make, with: {name: "${input.name}-b"}, after: [a]}
"""
Prepare = Callable[[Sequence[bytes]], object]


async def nothing(_contents: Sequence[bytes]) -> None:
    """All code is here."""


class Moody(Database):
    """Takes nothing while it is `away`."""

    away = False

    async def _commit(self, commit: Callable[[], object]) -> None:
        if self.away:
            raise ConnectionError("the database is away")
        await commit()  # type: ignore[misc]


@asynccontextmanager
async def member(
    url: str, registry: Registry, shop: Workshop, name: str, prepare: Prepare = nothing
) -> AsyncIterator[tuple[FlowEngine, Moody]]:
    database = await Moody.open(url, durable=False)
    await shop.attach(database)
    engine = FlowEngine(
        database,
        registry,
        shop.environment,
        shared=True,
        lease=LEASE,
        name=name,
        grace=0,
        retry_delay=lambda _tries: 0.001,
        prepare=prepare,  # type: ignore[arg-type]
    )
    try:
        async with engine:
            yield engine, database
    finally:
        await database.close()


async def called(shop: Workshop, name: str) -> None:
    async with asyncio.timeout(10):
        while not shop.calls[name]:
            await asyncio.sleep(0.002)


async def fence(database: Database, worker: str) -> None:
    """As another worker does that holds it for dead."""
    change = update(tables.workers).where(tables.workers.c.id == worker).values(state="fenced")
    async with database.engine.begin() as connection:
        await connection.execute(change)


async def ended(engine: FlowEngine, run: RunId) -> RunState:
    return (await engine.wait(run, 15)).state


async def test_a_fenced_worker_begins_anew_though_the_database_is_away_at_first(
    url: str, registry: Registry, shop: Workshop
) -> None:
    async with member(url, registry, shop, "w") as (engine, database):
        before = engine._tenure.member.id
        database.away = True
        await fence(database, before)
        await asyncio.sleep(LEASE)
        database.away = False

        async with asyncio.timeout(10):
            while True:
                try:
                    run = await engine.start(engine.parse(CHAIN), {"name": "x"})
                    break
                except (CommitFailed, Fenced):
                    await asyncio.sleep(0.05)

            assert await ended(engine, run) is RunState.SUCCEEDED
        assert engine._sharing is not None
        assert not engine._sharing.done()


@pytest.mark.sqlite
async def test_an_order_that_nobody_understands_keeps_no_other_from_being_carried_out(
    url: str, registry: Registry, shop: Workshop
) -> None:
    async with member(url, registry, shop, "w") as (engine, database):
        shop.block("x-a")
        run = await engine.start(engine.parse(CHAIN), {"name": "x"})
        await called(shop, "x-a")

        strange = await inbox.ask(database, run, "dance", b"{}", "kim")
        sound = await inbox.ask(database, run, "pause", b"{}", "kim")

        assert await inbox.reply_of(database, sound, 5) is not None
        assert b"dance" in (await inbox.reply_of(database, strange, 5) or b"")


async def test_a_worker_keeps_its_lease_while_it_fetches_the_code_of_what_it_takes_over(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    fetching = asyncio.Event()

    async def slowly(contents: Sequence[bytes]) -> None:
        if contents:
            fetching.set()
            await asyncio.sleep(LEASE * 3)

    async with member(postgresql, registry, shop, "slow", slowly) as (slow, _):
        before = slow._tenure.member.id
        async with member(postgresql, registry, shop, "dies") as (dies, _):
            shop.block("x-a")
            run = await dies.start(dies.parse(CHAIN), {"name": "x"})
            await called(shop, "x-a")
            await dies.abandon()
            await fetching.wait()
            async with member(postgresql, registry, shop, "looks") as (looks, _):
                shop.faults.clear()
                assert await ended(looks, run) is RunState.SUCCEEDED
                assert (await looks.get(run)).worker == before


async def test_runs_whose_code_was_fetched_too_slowly_are_left_to_those_who_have_them_by_then(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    fetching, fetched = asyncio.Event(), asyncio.Event()

    async def slowly(contents: Sequence[bytes]) -> None:
        if contents and not fetching.is_set():
            fetching.set()
            await fetched.wait()

    shop.block("x-a")
    async with member(postgresql, registry, shop, "dies") as (dies, _):
        run = await dies.start(dies.parse(CHAIN), {"name": "x"})
        await called(shop, "x-a")
        async with member(postgresql, registry, shop, "slow", slowly) as (slow, database):
            await dies.abandon()
            await fetching.wait()
            before = slow._tenure.member.id
            await fence(database, before)
            async with member(postgresql, registry, shop, "next") as (other, _):
                async with asyncio.timeout(10):
                    while slow._tenure.member.id == before or (await other.get(run)).worker == before:
                        await asyncio.sleep(0.01)
                fetched.set()
                await asyncio.sleep(0.1)

                record = await other.get(run)
                having = [engine for engine in (slow, other) if run in engine._roster.runs]
                assert [engine._tenure.member.id for engine in having] == [record.worker]


async def test_a_suspect_goes_alone_though_the_database_was_away_when_that_was_to_be_recorded() -> None:
    answers = [CommitFailed("away"), None, None]
    named: list[RunId | None] = []
    begun = asyncio.Event()

    async def name(run: RunId | None) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        named.append(run)

    def begin(run: ActiveRun) -> None:
        run.row.crashes = 0
        begun.set()

    suspect = ActiveRun(a_run("r", crashes=2), None, Execution(Graph(Plan("f", {}, ())), {}))
    quarantine = Quarantine(name, begin)

    quarantine.admit(suspect)

    async with asyncio.timeout(5):
        await begun.wait()
    assert named[0] == "r"
    await quarantine.close()


@asynccontextmanager
async def closed_to_all(url: str) -> AsyncIterator[None]:
    """The server runs and takes no connections, as while it starts."""
    name = make_url(url).database
    admin = create_async_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'))
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        try:
            yield
        finally:
            await connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'))
    await admin.dispose()


async def test_a_server_that_takes_no_connections_is_a_commit_that_failed(postgresql: str) -> None:
    database = await Database.open(postgresql)
    async with closed_to_all(postgresql):
        with pytest.raises(CommitFailed):
            await transact(database, lambda connection: connection.execute(text("SELECT 1")))
    await database.close()


async def test_locks_and_limits_are_given_again_after_a_server_took_no_connections(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    text_ = CHAIN.replace("steps:", "lock: [one]\nsteps:").replace("after: [a]", "after: [a], limit: {k: 1}")
    async with member(postgresql, registry, shop, "w") as (engine, _):
        gate = shop.block("x-a")
        first = await engine.start(engine.parse(text_), {"name": "x"})
        second = await engine.start(engine.parse(text_), {"name": "y"})
        await called(shop, "x-a")
        async with closed_to_all(postgresql):
            gate.set()
            await asyncio.sleep(1.5)

        assert await ended(engine, first) is RunState.SUCCEEDED
        assert await ended(engine, second) is RunState.SUCCEEDED


async def test_a_run_that_the_database_does_not_take_is_not_begun(
    postgresql: str, registry: Registry, shop: Workshop
) -> None:
    async with member(postgresql, registry, shop, "w") as (engine, _):
        with pytest.raises(InputError, match="tenant must be"):
            await engine.start(engine.parse(CHAIN), {"name": "x"}, tenant="a\0b")

        good = await engine.start(engine.parse(CHAIN), {"name": "y"})
        assert await ended(engine, good) is RunState.SUCCEEDED
    assert shop.calls["x-a"] == 0

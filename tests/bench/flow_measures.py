"""What is measured of the flow engine in one process: `python -m tests.bench.flow_measures NAME URL NUMBER`.

Each measure has a process of its own, so that none inherits another's memory, and prints one JSON object.
"""

import asyncio
import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from sqlalchemy import event, text
from tests.bench import flow_work

from skep.flow import Database, Flow, FlowEngine, Registry

Measured = dict[str, float]


class Counting(Database):
    """Counts what becomes durable."""

    commits = 0

    async def _commit(self, commit: Callable[[], Coroutine[Any, Any, None]]) -> None:  # type: ignore[override]
        self.commits += 1
        await super()._commit(commit)


@asynccontextmanager
async def opened(url: str, registry: Registry, **options: Any) -> AsyncIterator[tuple[FlowEngine, Counting]]:
    database = await Counting.open(url)
    try:
        async with FlowEngine(database, registry, lambda _route: None, **options) as engine:
            yield engine, database
    finally:
        await database.close()


async def load(url: str, runs: int) -> Measured:
    """So many runs started at once, from the first start to the last durable end."""
    async with opened(url, flow_work.registry()) as (engine, database):
        await all_at_once(engine, 50)
        began, commits, used = time.monotonic(), database.commits, processor()
        await all_at_once(engine, runs)
        took, steps = time.monotonic() - began, runs * flow_work.STEPS
        return {
            "seconds": took,
            "steps_per_second": steps / took,
            "commits": database.commits - commits,
            "commits_per_step": (database.commits - commits) / steps,
            "processor_per_step": (processor() - used) / steps,
        }


async def all_at_once(engine: FlowEngine, runs: int) -> None:
    await asyncio.gather(*[engine.start("levels", {"number": 0}) for _ in range(runs)])
    await ended(engine)


async def ended(engine: FlowEngine, look: float = 0.05) -> None:
    """All runs have; asked of the database, because asking for each run would be part of the measure."""
    while await engine.list(active=True, limit=1):
        await asyncio.sleep(look)


async def idle_run(url: str, runs: int) -> Measured:
    """Serial runs one by one on an idle engine, and the same database's commit latency before and after."""
    async with opened(url, flow_work.registry()) as (engine, database):
        latencies = await commit_latencies(database)
        took = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            await engine.wait(await engine.start("serial", {"number": 0}))
            took.append((time.perf_counter() - began) / flow_work.STEPS)
        latencies += await commit_latencies(database)
        step, commit = statistics.median(took[1:]), statistics.median(latencies)
        return {"step": step, "commit": commit, "commits_per_step": step / commit}


async def commit_latencies(database: Database, count: int = 100) -> list[float]:
    """Seconds that a transaction of one small row takes through the same driver."""
    found = []
    async with database.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS bench_latency (number INTEGER)"))
        await connection.commit()
        for number in range(count):
            began = time.perf_counter()
            await connection.execute(text("INSERT INTO bench_latency VALUES (:number)"), {"number": number})
            await connection.commit()
            found.append(time.perf_counter() - began)
    return found


async def one_run(url: str, steps: int) -> Measured:
    """One run of a document of so many steps, four side by side."""
    registry = flow_work.registry()
    before = settled()
    began = time.monotonic()
    flow = registry.parse(flow_work.levels("large", steps), "large.yaml")
    parsed = time.monotonic() - began
    return {"parsed": parsed, **await weighed(url, registry, flow, {"number": 0}, steps, before)}


async def one_fan_out(url: str, items: int) -> Measured:
    """One run of one step for each of so many items."""
    registry = flow_work.registry()
    flow = registry.parse(flow_work.fan_out("wide"), "wide.yaml")
    return await weighed(url, registry, flow, {"numbers": list(range(items))}, items, settled())


async def weighed(
    url: str, registry: Registry, flow: Flow, values: dict[str, Any], steps: int, before: float
) -> Measured:
    """Time and memory per step.  `plan`: bytes of the checked document, `memory`: of the run at its peak."""
    async with opened(url, registry) as (engine, _database):
        await all_at_once(engine, 50)
        plan = settled() - before
        forget_peak()
        began, used = time.monotonic(), processor()
        run = await engine.wait(await engine.start(flow, values))
        took = time.monotonic() - began
        if run.state.value != "succeeded":
            raise SystemExit(f"the run ended {run.state}: {run.error}")
        return {
            "seconds": took,
            "per_step": took / steps,
            "processor_per_step": (processor() - used) / steps,
            "plan": plan / steps,
            "memory": (peak() - plan - before) / steps,
        }


async def idle(url: str, seconds: float) -> Measured:
    """A worker that has nothing to do.  Transactions, as a server counts them, include the pool's pings."""
    async with opened(url, flow_work.registry(), shared=not url.startswith("sqlite")) as (engine, database):
        await all_at_once(engine, 50)
        statements = 0

        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        await asyncio.sleep(3)  # what was done before is told of late, and does not count
        event.listen(database.engine.sync_engine, "before_cursor_execute", count)
        used, commits, began = processor(), await transactions(database), time.monotonic()
        looked = statements
        await asyncio.sleep(seconds)
        took, worked = time.monotonic() - began, processor() - used
        seen = statements - looked
        await asyncio.sleep(1.5)  # a server tells its counts once a second
        begun = max(0, await transactions(database) - commits - 1)  # the first asking was one itself
        return {
            "processor": 100 * worked / took,
            "queries_per_second": seen / took,
            "transactions_per_second": begun / took,
        }


async def transactions(database: Database) -> float:
    if database.engine.dialect.name == "sqlite":
        return 0
    async with database.read() as connection:
        found = await connection.execute(
            text(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
        )
        return float(found.scalar_one())


# the process


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def settled() -> float:
    """Resident bytes once what nobody uses is gone."""
    gc.collect()
    return of_status("VmRSS")


def peak() -> float:
    return of_status("VmHWM")


def forget_peak() -> None:
    """The peak counts from now (see proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def of_status(name: str) -> float:
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


MEASURES: dict[str, Callable[[str, Any], Coroutine[Any, Any, Measured]]] = {
    "load": lambda url, argument: load(url, int(argument)),
    "idle_run": lambda url, argument: idle_run(url, int(argument)),
    "one_run": lambda url, argument: one_run(url, int(argument)),
    "one_fan_out": lambda url, argument: one_fan_out(url, int(argument)),
    "idle": lambda url, argument: idle(url, float(argument)),
}


def main() -> None:
    name, url, argument = sys.argv[1:]
    print(msgspec.json.encode(uvloop.run(MEASURES[name](url, argument))).decode())


if __name__ == "__main__":
    main()

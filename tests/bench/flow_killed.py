"""A worker dies with a thousand runs in flight, and another one on the same PostgreSQL takes them up.

`python -m tests.bench.flow_killed URL LEDGER RUNS` is a worker.  Each run has four links of two steps: an
idempotent one that writes its key to a file, and a transactional one that writes a row in the transaction of
its result.  A row that is there twice would be something done twice; a key that is there twice was delivered
again, as idempotent steps may be.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop
from sqlalchemy import text

from skep.flow import Context, Database, FlowEngine, Registry, step

LINKS = 4
PATIENCE = 120.0


class Adoption(msgspec.Struct, frozen=True):
    """What was seen, times in seconds after the kill; `twice`: rows too many of transactional steps."""

    in_flight: int
    first_adopted: float
    all_adopted: float
    all_finished: float
    succeeded: int
    rows: int
    missing: int
    twice: int
    delivered_again: int


@step
async def deliver(cx: Context[Path]) -> None:
    """Takes a while, as real work does, so that the kill finds runs in the middle of it."""
    with cx.env.open("a") as ledger:
        ledger.write(f"{cx.key}\n")
    await asyncio.sleep(0.02)


@step(kind="transactional")
async def note(cx: Context[Path]) -> None:
    await cx.tx.execute(text("INSERT INTO bench_notes VALUES (:key)"), {"key": cx.key})


def registry() -> Registry:
    made = Registry()
    made.add_step(deliver, "bench.deliver")
    made.add_step(note, "bench.note")
    lines = ["flow: links", "steps:"]
    for link in range(LINKS):
        after = f", after: [note{link - 1}]" if link else ""
        lines.append(f"  deliver{link}: {{use: bench.deliver{after}}}")
        lines.append(f"  note{link}: {{use: bench.note, after: [deliver{link}]}}")
    made.add_flow("\n".join(lines) + "\n", "links.yaml")
    return made


async def measure(url: str, directory: Path, runs: int) -> Adoption:
    """Start a worker and the runs, a second worker once the first has them all, and kill the first."""
    ledger = directory / "deliveries"
    database = await Database.open(url)
    try:
        await database.write(lambda c: c.execute(text("CREATE TABLE bench_notes (key TEXT)")))
        with started(url, ledger, runs) as first:
            await until(database, "worker IS NOT NULL AND state <> 'pending'", runs)
            with started(url, ledger, 0):
                await under_way(database, runs)
                in_flight, times = await killed(database, first, runs)
        return await counted(database, ledger, runs, in_flight, times)
    finally:
        await database.close()


async def under_way(database: Database, runs: int) -> None:
    """Return once a quarter of the work is done, so that the kill comes in the middle of it."""
    deadline = time.monotonic() + PATIENCE
    while int(await scalar(database, "SELECT count(*) FROM bench_notes")) < runs * LINKS / 4:
        if time.monotonic() > deadline:
            raise TimeoutError("the runs do not go on")
        await asyncio.sleep(0.02)


async def killed(database: Database, first: subprocess.Popen[str], runs: int) -> tuple[int, list[float]]:
    """How many runs had not ended; seconds until the first was adopted, all were, all had ended."""
    owner = await scalar(database, "SELECT min(worker) FROM flow_runs")
    in_flight = int(await scalar(database, "SELECT count(*) FROM flow_runs WHERE finished IS NULL"))
    first.kill()
    began = time.monotonic()
    return in_flight, [
        await until(database, f"worker <> '{owner}' AND epoch > 1", 1) - began,
        await until(database, f"finished IS NULL AND worker = '{owner}'", 0) - began,
        await until(database, "finished IS NOT NULL", runs) - began,
    ]


async def counted(
    database: Database, ledger: Path, runs: int, in_flight: int, times: list[float]
) -> Adoption:
    succeeded = int(await scalar(database, "SELECT count(*) FROM flow_runs WHERE state = 'succeeded'"))
    rows = int(await scalar(database, "SELECT count(*) FROM bench_notes"))
    distinct = int(await scalar(database, "SELECT count(DISTINCT key) FROM bench_notes"))
    delivered = Counter(ledger.read_text().splitlines())
    first_adopted, all_adopted, all_finished = times
    return Adoption(
        in_flight=in_flight,
        first_adopted=first_adopted,
        all_adopted=all_adopted,
        all_finished=all_finished,
        succeeded=succeeded,
        rows=rows,
        missing=runs * LINKS - distinct + runs * LINKS - len(delivered),
        twice=rows - distinct,
        delivered_again=delivered.total() - len(delivered),
    )


async def until(database: Database, condition: str, count: int) -> float:
    """The moment at which so many runs (or more; for 0: none) are like this."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = int(await scalar(database, f"SELECT count(*) FROM flow_runs WHERE {condition}"))
        if found >= count > 0 or found == count:
            return time.monotonic()
        await asyncio.sleep(0.02)
    raise TimeoutError(f"after {PATIENCE:g} s there are not {count} runs with {condition}")


async def scalar(database: Database, query: str) -> str:
    async with database.read() as connection:
        return str((await connection.execute(text(query))).scalar_one())


@contextmanager
def started(url: str, ledger: Path, runs: int) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own, which starts so many runs."""
    command = [sys.executable, "-m", "tests.bench.flow_killed", url, str(ledger), str(runs)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            raise RuntimeError("the worker did not start")
        yield worker
    finally:
        worker.kill()
        worker.wait()


async def work(url: str, ledger: Path, runs: int) -> None:
    database = await Database.open(url)
    async with FlowEngine(database, registry(), lambda _route: ledger, shared=True) as engine:
        print("ready", flush=True)
        await asyncio.gather(*[engine.start("links", {}) for _ in range(runs)])
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))

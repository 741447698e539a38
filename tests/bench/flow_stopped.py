"""Workers are stopped at random moments, as by a hypervisor: how long until others have their runs.

`python -m tests.bench.flow_stopped [STOPS]` says, for each place in which a stopped worker left a
connection, how often that was and how long the others took to go on. `… worker URL NAME` is a worker. Each
is new when it is stopped: the driver prepares a statement when it sees it first, and that is one more place
to be stopped at.
"""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict

import uvloop
from sqlalchemy import text
from tests.flow import postgresql

from skep.flow import Context, Database, FlowEngine, Registry, step
from skep.flow.admission.policies import Policies, Policy
from skep.flow.execution import quarantine
from skep.flow.storage import drivers

LEASE = 1.0
STALLED_MS = 1500
"""Shorter than in earnest, as the lease is: what is to be seen is whether others go on at all."""
WORKERS, UNDER_WAY = 3, 12
AGES = (0.2, 2.0)
"""Seconds after which a new worker is stopped: most of them within its first statements."""
PATIENCE = 30.0
"""Seconds after which nobody will go on any more."""
FLOW = """
flow: stopped
lock: [bench/$input.lock]
input: {lock: str}
steps:
  first: {use: bench.note}
  second: {use: bench.wait, after: [first]}
  third: {use: bench.note, after: [second]}
"""
_PLACES = """
SELECT state || coalesce(' (' || wait_event || ')', '') FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND state <> 'idle' AND wait_event_type = 'Client' AND state_change < clock_timestamp() - interval '0.2 s'
"""
_DONE = "SELECT count(*) FROM flow_runs WHERE finished IS NOT NULL"
_LEFT = """
SELECT count(*) FROM flow_runs r JOIN flow_workers w ON w.id = r.worker
WHERE r.finished IS NULL AND w.name = :name
"""
_BLOCKED = """
SELECT a.pid, a.state, a.wait_event, pg_blocking_pids(a.pid), left(a.query, 80) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.state <> 'idle'
"""


@step(kind="transactional")
async def note(cx: Context[None]) -> None:
    await cx.tx.execute(text("INSERT INTO bench_notes VALUES (:key)"), {"key": cx.key})


@step
async def wait(cx: Context[None]) -> None:
    await asyncio.sleep(0.01)


def registry() -> Registry:
    made = Registry()
    made.add_step(note, "bench.note")
    made.add_step(wait, "bench.wait")
    made.add_flow(FLOW, "stopped.yaml")
    return made


async def work(url: str, name: str) -> None:
    drivers.STALLED_MS = STALLED_MS
    quarantine.SUSPECT = 10**9  # runs whose workers stop again and again are meant to go on here
    database = await Database.open(url)
    policies = Policies({"bench": Policy(concurrency=4)})
    async with FlowEngine(
        *(database, registry(), lambda _route: None),
        shared=True,
        lease=LEASE,
        name=name,
        capacity=UNDER_WAY,
        policies=policies,
    ):
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
    await database.close()


class Stops:
    """What became of each; seconds until the others had all its runs and went on, by the place."""

    def __init__(self, url: str, database: Database, chance: random.Random) -> None:
        self.took: dict[str, list[float]] = defaultdict(list)
        self._url = url
        self._database = database
        self._chance = chance
        self._names = 0
        self._workers: list[tuple[str, subprocess.Popen[bytes]]] = []

    async def go(self, stops: int) -> None:
        try:
            while len(self._workers) < WORKERS:
                self._start()
            for _ in range(stops):
                await self._stop_one()
        finally:
            for _, worker in self._workers:
                end(worker)

    async def _stop_one(self) -> None:
        """The newest one, while it starts or soon after; another one takes its place."""
        name, worker = self._start()
        await asyncio.sleep(self._chance.uniform(*AGES))
        worker.send_signal(signal.SIGSTOP)
        begun, done = time.monotonic(), await self._count(_DONE)
        await asyncio.sleep(0.3)
        places = {str(place) for (place,) in await self._rows(_PLACES)} or {"outside of transactions"}
        while await self._count(_LEFT, name=name) or await self._count(_DONE) < done + UNDER_WAY:
            if time.monotonic() - begun > PATIENCE:
                print(f"nobody goes on: {places}: {await self._rows(_BLOCKED)}", flush=True)
                break
            await asyncio.sleep(0.05)
        for place in places:
            self.took[place].append(time.monotonic() - begun)
        worker.send_signal(signal.SIGCONT)
        await asyncio.to_thread(end, self._workers.pop(0)[1])

    def _start(self) -> tuple[str, subprocess.Popen[bytes]]:
        self._names += 1
        name = f"w{self._names}-"
        command = [sys.executable, "-m", "tests.bench.flow_stopped", "worker", self._url, name]
        worker = subprocess.Popen(command)
        self._workers.append((name, worker))
        return name, worker

    async def _rows(self, query: str, **values: object) -> list[tuple[object, ...]]:
        async with self._database.read() as connection:
            return [tuple(row) for row in await connection.execute(text(query), values)]

    async def _count(self, query: str, **values: object) -> int:
        ((count,),) = await self._rows(query, **values)
        return int(str(count))


def end(worker: subprocess.Popen[bytes]) -> None:
    """In order: a run whose workers died too often is kept apart from the others."""
    worker.terminate()
    try:
        worker.wait(10)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


async def feed(engine: FlowEngine, under_way: int) -> None:
    """There are always so many runs, and most want a lock that another one has."""
    for number in range(2**63):
        while len(await engine.list(active=True, limit=under_way)) >= under_way:
            await asyncio.sleep(0.01)
        await engine.start("stopped", {"lock": str(number % 5)})


async def main(stops: int) -> None:
    with postgresql.serve() as cluster:
        database = await Database.open(cluster.url)
        await database.write(lambda c: c.execute(text("CREATE TABLE bench_notes (key TEXT)")))
        async with FlowEngine(database, registry(), lambda _route: None, shared=True, capacity=0) as engine:
            feeding = asyncio.create_task(feed(engine, UNDER_WAY))
            found = Stops(cluster.url, database, random.Random())
            try:
                await found.go(stops)
            finally:
                feeding.cancel()
                for place, took in sorted(found.took.items()):
                    print(f"{len(took):4} × {place}: {min(took):.1f} … {max(took):.1f} s")
        await database.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        uvloop.run(work(*sys.argv[2:]))
    else:
        uvloop.run(main(int(sys.argv[1]) if sys.argv[1:] else 100))

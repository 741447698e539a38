"""`make bench-flow`: how fast the flow engine is and what it weighs, beside other engines in the same run.

Every commit waits for the disk, in ours and in theirs.  Measures run one after another, each in a fresh
process on a fresh database.  One JSON line per figure on stdout, a table at the end on stderr.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
from tests.bench import flow_databases, flow_killed, flow_peers
from tests.bench.flow_databases import Databases, SqliteFiles
from tests.bench.flow_measures import Measured
from tests.bench.flow_peers import Peer
from tests.bench.flow_work import LEVELS, STEPS, WIDTH
from tests.bench.report import Report, Target

FLAT = 1.5
"""A cost that grows by less than this from 1,000 steps to 100,000 is called flat."""


class Bench:
    """One run of the benchmark: where the databases are, and how much of everything."""

    def __init__(
        self, report: Report, sqlite: Databases, postgresql: Databases, directory: Path, quick: bool
    ) -> None:
        self.report = report
        self.sqlite = sqlite
        self.postgresql = postgresql
        self.directory = directory
        self.runs = 200 if quick else 2000
        self.sizes = (1_000, 3_000) if quick else (1_000, 10_000, 100_000)
        self.flight = 100 if quick else 1000
        self.seconds = 3.0 if quick else 20.0

    # speed

    def throughput(self) -> None:
        """The same work on both databases, and on the peers' engines."""
        ours = self._load(self.sqlite)
        theirs = self._dbos(self.sqlite)
        self._steps_per_second(self.sqlite, ours, Target("at least", 10_000, ratio=100), theirs)
        self._steps_per_second(self.sqlite, ours, Target("at least", 10_000, ratio=500), self._taskflow())
        self._steps_per_second(self.sqlite, ours, None, self._taskflow_in_memory())
        self._steps_per_second(self.sqlite, ours, None, self._celery())
        self._commits(self.sqlite, ours)

    def throughput_on_postgresql(self) -> None:
        ours = self._load(self.postgresql)
        theirs = self._dbos(self.postgresql)
        self._steps_per_second(self.postgresql, ours, Target("at least", 5_000, ratio=20), theirs)
        self._commits(self.postgresql, ours)

    def _load(self, databases: Databases) -> Measured:
        return measure("load", databases.new("load"), self.runs)

    def _steps_per_second(
        self, databases: Databases, ours: Measured, target: Target | None, peer: Peer | None
    ) -> None:
        self.report.add(
            f"durable steps per second, {databases.name}",
            ours["steps_per_second"],
            "1/s",
            target=target,
            peer=peer.peer if peer else None,
            peer_value=peer.steps_per_second if peer else None,
            note=f"{self.runs} runs of {LEVELS} levels of {WIDTH} at once, {ours['seconds']:.1f} s, "
            f"{ours['processor_per_step'] * 1e6:.0f} us of processor per step"
            + (f"; peer: {peer.how}" if peer else ""),
        )

    def _commits(self, databases: Databases, ours: Measured) -> None:
        self.report.add(
            f"commits per step under load, {databases.name}",
            ours["commits_per_step"],
            "",
            target=Target("at most", 0.05),
            note=f"{ours['commits']:.0f} commits for {self.runs * STEPS} steps",
        )

    # peers

    def _dbos(self, databases: Databases) -> Peer | None:
        at_once = [20, 100]
        urls = [flow_peers.plain(databases.new(f"dbos{count}")) for count in at_once]
        settings = "SQLite as it opens it" if databases is self.sqlite else databases.name
        return noted(flow_peers.best("dbos", urls, self.seconds, at_once), settings)

    def _taskflow(self) -> Peer | None:
        at_once = [1, 4]
        urls = [flow_peers.plain(self.sqlite.new(f"taskflow{count}")) for count in at_once]
        return noted(flow_peers.best("taskflow", urls, self.seconds, at_once), "SQLite as it opens it")

    def _taskflow_in_memory(self) -> Peer | None:
        return noted(
            flow_peers.measured("taskflow", "memory", self.seconds, 1),
            "in memory: not durable, for comparison",
        )

    def _celery(self) -> Peer | None:
        with flow_peers.redis(self.directory / "redis") as url:
            found = flow_peers.best("celery", [url] * 2, self.seconds, [20, 100]) if url else None
        return noted(found, "Redis, appendfsync always, as broker and for results")

    # one run

    def idle_run(self) -> None:
        for databases in (self.sqlite, self.postgresql):
            found = measure("idle_run", databases.new("idle_run"), 50)
            self.report.add(
                f"idle run of {STEPS} serial steps, per step, {databases.name}",
                found["commits_per_step"],
                "commit latencies",
                target=Target("at most", 1.5),
                note=f"{found['step'] * 1e3:.2f} ms per step with the run's start and end; commit of one "
                f"row through the same driver {found['commit'] * 1e3:.2f} ms; p50 of 50 runs",
            )

    def large_run(self) -> None:
        found = [measure("one_run", self.sqlite.new(f"large{size}"), size) for size in self.sizes]
        self._grown("one run", found)
        self._memory(
            "one run",
            found[-1],
            f"the checked document beside it {found[-1]['plan'] / 1024:.2f} KiB per step",
        )

    def fan_out(self) -> None:
        found = [measure("one_fan_out", self.sqlite.new(f"wide{size}"), size) for size in self.sizes]
        self._grown("one fan-out", found)
        self._memory("one fan-out", found[-1], f"the run took {found[-1]['seconds']:.1f} s")

    def _grown(self, name: str, found: list[Measured]) -> None:
        costs = ", ".join(
            f"{size:,}: {each['per_step'] * 1e6:.0f} us ({each['processor_per_step'] * 1e6:.0f} us processor)"
            for size, each in zip(self.sizes, found, strict=True)
        )
        self.report.add(
            f"{name} of {self.sizes[-1]:,} steps, cost per completion against one of {self.sizes[0]:,}",
            found[-1]["per_step"] / found[0]["per_step"],
            "x",
            target=Target("at most", FLAT),
            note=costs,
        )

    def _memory(self, name: str, found: Measured, note: str) -> None:
        self.report.add(
            f"{name} of {self.sizes[-1]:,} steps, memory per step",
            found["memory"] / 1024,
            "KiB",
            target=Target("at most", 1),
            note=f"peak of VmRSS during the run above what it was before; {note}",
        )

    # idle

    def idle(self) -> None:
        for databases in (self.sqlite, self.postgresql):
            found = measure("idle", databases.new("idle"), round(self.seconds))
            for name, unit in (("queries_per_second", "1/s"), ("processor", "%")):
                self.report.add(
                    f"idle worker, {name.replace('_', ' ')}, {databases.name}",
                    found[name],
                    unit,
                    target=Target("at most", 1),
                    note=f"over {self.seconds:g} s, {found['transactions_per_second']:.1f} transactions/s "
                    "as the server counts them, with the pings of the pool",
                )

    # death

    def killed(self) -> None:
        url = self.postgresql.new("killed")
        found = asyncio.run(flow_killed.measure(url, self.directory, self.flight))
        note = (
            f"{found.in_flight} runs in flight; all adopted after {found.all_adopted:.1f} s, all ended after "
            f"{found.all_finished:.1f} s; idempotent steps delivered again: {found.delivered_again}"
        )
        add = partial(self.report.add, note=note)
        add("worker killed: first run adopted", found.first_adopted, "s", target=Target("at most", 10))
        add("worker killed: runs that succeeded", found.succeeded, "", target=Target("at least", self.flight))
        add("worker killed: done twice", found.twice, "", target=Target("at most", 0))
        add("worker killed: never done", found.missing, "", target=Target("at most", 0))


def noted(peer: Peer | None, settings: str) -> Peer | None:
    return peer and Peer(f"{peer.peer}, {settings}", peer.how, peer.steps_per_second)


def measure(name: str, url: str, argument: int) -> Measured:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.bench.flow_measures", name, url, str(argument)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=1800)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)  # warnings stand before it


ROWS: dict[str, Callable[[Bench], None]] = {
    "sqlite": Bench.throughput,
    "postgresql": Bench.throughput_on_postgresql,
    "idle-run": Bench.idle_run,
    "large-run": Bench.large_run,
    "fan-out": Bench.fan_out,
    "idle": Bench.idle,
    "killed": Bench.killed,
}


def main() -> None:
    arguments = parse_arguments()
    report = Report()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skep-bench-")))
        server = Path(tempfile.mkdtemp(prefix="skep-bench-postgresql-"))
        stack.callback(shutil.rmtree, server)
        postgresql = stack.enter_context(flow_databases.postgresql(server))
        bench = Bench(report, SqliteFiles(directory), postgresql, directory, arguments.quick)
        failed = [name for name in arguments.rows if not carried_out(name, bench)]
    report.print_table()
    if failed:
        sys.exit(f"error: not measured: {', '.join(failed)}")


def carried_out(name: str, bench: Bench) -> bool:
    """A measure that fails is told and does not keep the others from being made."""
    try:
        ROWS[name](bench)
    except Exception:
        traceback.print_exc()
        return False
    return True


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it works")
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"of {', '.join(ROWS)}; default: all")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    main()

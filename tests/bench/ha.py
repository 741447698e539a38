"""What the death of each part of a data centre costs: 3 workers, 2 API processes and 3 agents under load.

`make bench-ha BENCH_ARGS="--kills 120 --seed 7"`
"""

import argparse
import asyncio
import random
import secrets
import shutil
import statistics
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.report import Report, Target
from tests.cluster.accounts import disorder
from tests.cluster.datacentre import data_centre
from tests.cluster.siege import KINDS, Siege, besiege
from tests.machines import busybox_archive

SOON = Target("at most", 10.0)
NONE = Target("at most", 0)
PEACE = 60.0
"""Seconds after the last kill in which everything must be in order."""


async def measure(report: Report, folder: Path, kills: int, seed: int) -> None:
    async with data_centre(folder) as centre:
        await centre.load(busybox_archive(folder))
        siege = await besiege(centre, random.Random(seed), kills, KINDS)
        _recoveries(report, siege)
        _answers(report, siege, f"{kills} kills, seed {seed}")
        wrong = ["not looked yet"]
        for _ in range(int(PEACE)):
            if not (wrong := await disorder(centre, siege.customers)):
                break
            await asyncio.sleep(1)
        changes = sum(customer.changes for customer in siege.customers)
        report.add("lost changes", len(siege.lost), "changes", target=NONE, note=f"of {changes}")
        report.add(
            "doubled, leaked or missing afterwards", len(wrong), "things", target=NONE, note="; ".join(wrong)
        )


def _recoveries(report: Report, siege: Siege) -> None:
    """From the kill to the end of the next change that needs what died; of broker and database: once up."""
    for kind in sorted({one.kind for one in siege.recoveries}):
        took = [one.took for one in siege.recoveries if one.kind == kind]
        target = None if "its own start" in kind else SOON
        note = f"{len(took)} times"
        report.add(f"{kind}: median", statistics.median(took), "s", target=target, note=note)
        report.add(f"{kind}: worst", max(took), "s", target=target, note=note)


def _answers(report: Report, siege: Siege, note: str) -> None:
    failures = siege.client.failures
    report.add("requests", siege.client.asked, "requests", note=note)
    down = sum(one.excused for one in failures)
    report.add("without answer: the process itself was down", down, "requests")
    reasons = Counter(one.reason for one in siege.unexcused)
    report.add(
        "without answer, and no reason for it",
        len(siege.unexcused),
        "requests",
        target=NONE,
        note=str(reasons),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    arguments = parser.parse_args()
    report, folder = Report(), Path(tempfile.mkdtemp(prefix="skep-bench-ha-"))
    try:
        asyncio.run(measure(report, folder, arguments.kills, arguments.seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.print_table()


if __name__ == "__main__":
    main()

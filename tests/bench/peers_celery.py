# mypy: disable-error-code="import-not-found,misc"
"""Run by the peers' own Python: workflows of 20 no-op tasks on Celery, five levels of four.

    python tests/bench/peers_celery.py BROKER_URL SECONDS AT_ONCE

Its documentation's settings for tasks that must not be lost: acknowledged late, rejected if the worker is
lost, persistent messages, results stored.  A level is a group, a workflow a chain of groups (chords).  The
worker has a process per processor.  Prints one JSON object.
"""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from celery import Celery, chain, group

LEVELS = 5
WIDTH = 4

app = Celery("peers_celery", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_delivery_mode="persistent",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
    result_expires=3600,
)


@app.task(name="add")
def add(numbers: "int | list[int]") -> int:
    return (max(numbers) if isinstance(numbers, list) else numbers) + 1


def workflow() -> object:
    first, *later = [[add.s() for _ in range(WIDTH)] for _ in range(LEVELS)]
    levels = [group(add.s(0) for _ in first), *[group(tasks) for tasks in later]]
    return chain(*levels)


def round_of(count: int) -> None:
    results = [workflow().apply_async() for _ in range(count)]  # type: ignore[attr-defined]
    for result in results:
        if result.get(timeout=120, interval=0.01) != [LEVELS] * WIDTH:
            raise SystemExit("wrong result")


def main() -> None:
    broker, seconds, at_once = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    app.conf.update(broker_url=broker, result_backend=broker)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "peers_celery",
            "worker",
            "-c",
            str(os.cpu_count()),
            "-l",
            "ERROR",
        ],
        cwd=Path(__file__).parent,
        env={**os.environ, "BENCH_BROKER": broker, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.DEVNULL,
    )
    try:
        round_of(1)
        done, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            round_of(at_once)
            done += at_once
        took = time.monotonic() - began
    finally:
        worker.terminate()
        worker.wait()
    print(
        json.dumps(
            {
                "peer": f"Celery {version('celery')}",
                "how": f"{at_once} chains of groups at once, {os.cpu_count()} processes, acks_late, "
                f"{done} chains in {took:.0f} s",
                "steps_per_second": done * LEVELS * WIDTH / took,
            }
        )
    )


if __name__ == "__main__":
    main()

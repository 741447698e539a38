# mypy: disable-error-code="import-not-found,misc"
"""Run by the peers' own Python: graph flows of 20 no-op tasks on TaskFlow, five levels of four.

    python tests/bench/peers_taskflow.py DATABASE_URL|memory SECONDS AT_ONCE

As its documentation does it: a graph flow, the parallel engine with an executor of threads, and a logbook in
the backend; `AT_ONCE` engines run side by side, each in a thread.  Prints one JSON object.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version

from oslo_utils import uuidutils
from taskflow import engines, task
from taskflow.patterns import graph_flow
from taskflow.persistence import backends, models

LEVELS = 5
WIDTH = 4


class Add(task.Task):
    def execute(self, **numbers: int) -> int:
        return max(numbers.values()) + 1


def new_flow() -> graph_flow.Flow:
    """Each task needs one result of the level before, and comes after all four."""
    flow = graph_flow.Flow("levels")
    for level in range(LEVELS):
        for lane in range(WIDTH):
            needs = [f"r{level - 1}_{other}" for other in range(WIDTH)] if level else ["number"]
            flow.add(Add(f"s{level}_{lane}", provides=f"r{level}_{lane}", requires=needs))
    return flow


def run_one(backend: object, executor: ThreadPoolExecutor) -> None:
    book, detail = models.LogBook("bench"), None
    with closing(backend.get_connection()) as connection:  # type: ignore[attr-defined]
        detail = models.FlowDetail("levels", uuid=uuidutils.generate_uuid())
        book.add(detail)
        connection.save_logbook(book)
    engine = engines.load(
        new_flow(),
        flow_detail=detail,
        book=book,
        backend=backend,
        engine="parallel",
        executor=executor,
        store={"number": 0},
    )
    engine.run()
    if engine.storage.fetch(f"r{LEVELS - 1}_0") != LEVELS:
        raise SystemExit("wrong result")


def main() -> None:
    url, seconds, at_once = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    backend = backends.fetch({"connection": url})
    with closing(backend.get_connection()) as connection:
        connection.upgrade()
    done, began = 0, time.monotonic()
    with ThreadPoolExecutor(WIDTH) as executor, ThreadPoolExecutor(at_once) as runs:
        while time.monotonic() - began < seconds:
            for result in [runs.submit(run_one, backend, executor) for _ in range(at_once)]:
                result.result()
            done += at_once
        took = time.monotonic() - began
    print(
        json.dumps(
            {
                "peer": f"TaskFlow {version('taskflow')}",
                "how": f"{at_once} parallel engines at once, {WIDTH} threads, {done} flows in {took:.0f} s",
                "steps_per_second": done * LEVELS * WIDTH / took,
            }
        )
    )


if __name__ == "__main__":
    main()

# mypy: disable-error-code="import-not-found,misc"
"""Run by the peers' own Python: workflows of 20 durable no-op steps on DBOS, five levels of four.

    python tests/bench/peers_dbos.py DATABASE_URL SECONDS AT_ONCE

As its documentation does it: a workflow starts the four steps of a level in a fixed order and gathers them;
every step's result is checkpointed in the system database.  Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from importlib.metadata import version

from dbos import DBOS, DBOSConfig

LEVELS = 5
WIDTH = 4


@DBOS.step()
async def add(number: int) -> int:
    return number + 1


@DBOS.workflow()
async def levels(number: int) -> int:
    values = [number] * WIDTH
    for _ in range(LEVELS):
        values = await asyncio.gather(*[add(value) for value in values])
    return sum(values)


async def measure(seconds: float, at_once: int) -> tuple[int, float]:
    """Workflows finished, in how many seconds; the first round warms up and is not counted."""
    await round_of(2)
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        await round_of(at_once)
        done += at_once
    return done, time.monotonic() - began


async def round_of(count: int) -> None:
    handles = [await DBOS.start_workflow_async(levels, 0) for _ in range(count)]
    results = await asyncio.gather(*[handle.get_result() for handle in handles])
    if results != [LEVELS * WIDTH] * count:
        raise SystemExit(f"wrong results: {results}")


def main() -> None:
    url, seconds, at_once = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url,
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)
    DBOS.launch()
    done, took = asyncio.run(measure(seconds, at_once))
    DBOS.destroy()
    print(
        json.dumps(
            {
                "peer": f"DBOS {version('dbos')}",
                "how": f"{at_once} workflows at once, levels gathered, {done} of them in {took:.0f} s",
                "steps_per_second": done * LEVELS * WIDTH / took,
            }
        )
    )


if __name__ == "__main__":
    main()

"""A process that stops itself in the middle of a transaction: `python -m tests.flow.hanging URL WHERE`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from skep.flow.storage import drivers

PLACES = ("between statements", "between a statement and its values", "while copying", "while reading")


STALLED_MS = 200


async def main(url: str, place: str) -> None:
    """It has changed a row of `t`, and so locked it."""
    drivers.STALLED_MS = STALLED_MS
    async with drivers.open_engine(url).connect() as connection:
        await connection.exec_driver_sql("UPDATE t SET n = 2")
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if place == "between a statement and its values":
            await driver.prepare("SELECT n FROM t WHERE n = $1")
        if place == "while copying":
            await driver.copy_to_table("t", source=rows())
        if place == "while reading":
            asyncio.get_running_loop().call_soon(stop)
            await driver.fetch("SELECT repeat('x', 100000) FROM generate_series(1, 1000)")
        stop()


async def rows() -> AsyncIterator[bytes]:
    yield b"7\n"
    stop()


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

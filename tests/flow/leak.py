"""A process that dies of a step that takes all memory: `python -m tests.flow.leak URL start|finish`."""

import asyncio
import os
import signal
import sys
import threading
import time

from skep.flow import Context, Database, FlowEngine, Registry, RunState, step
from skep.flow.execution.watchdog import resident

GOOD = "flow: good\nsteps:\n  a: {use: work}\n  b: {use: work, after: [a]}\n  c: {use: work, after: [b]}\n"
BAD = "flow: bad\nsteps:\n  a: {use: work}\n  b: {use: leak, after: [a]}\n"
ROOM = 96 * 2**20
"""Bytes that the process may grow by."""
leaked: list[bytes] = []


@step
async def work(cx: Context[None]) -> None:
    await asyncio.sleep(0.02)


@step
async def leak(cx: Context[None]) -> None:
    while True:
        leaked.append(b"x" * 2**21)
        await asyncio.sleep(0)


def kill_when_large(limit: int) -> None:
    while resident() < limit:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, what: str) -> None:
    registry = Registry()
    registry.add_step(work, "work")
    registry.add_step(leak, "leak")
    threading.Thread(target=kill_when_large, args=[resident() + ROOM], daemon=True).start()
    database = await Database.open(url, durable=False)
    async with FlowEngine(database, registry, lambda _route: None) as engine:
        if what == "start":
            for _ in range(10):
                await engine.start(engine.parse(GOOD), {})
            await engine.start(engine.parse(BAD), {})
        runs = await engine.list(limit=100)
        while any(not run.state.ended and run.state is not RunState.NEEDS_OPERATOR for run in runs):
            await asyncio.sleep(0.02)
            runs = await engine.list(limit=100)
        for run in runs:
            print(run.flow, run.state.value, run.error)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

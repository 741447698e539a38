"""A process whose steps may kill it: `python -m tests.flow.poison URL start|finish`."""

import asyncio
import os
import sys

from skep.flow import Context, Database, FlowEngine, Registry, RunState, step

GOOD = "flow: good\nsteps:\n  a: {use: work}\n  b: {use: work, after: [a]}\n  c: {use: work, after: [b]}\n"
BAD = "flow: bad\nsteps:\n  a: {use: work}\n  b: {use: die, after: [a]}\n"


@step
async def work(cx: Context[None]) -> None:
    await asyncio.sleep(0.02)


@step
async def die(cx: Context[None]) -> None:
    os._exit(9)


async def main(url: str, what: str) -> None:
    registry = Registry()
    registry.add_step(work, "work")
    registry.add_step(die, "die")
    database = await Database.open(url, durable=False)
    async with FlowEngine(database, registry, lambda _route: None) as engine:
        if what == "start":
            for _ in range(10):
                await engine.start(engine.parse(GOOD), {})
            await engine.start(engine.parse(BAD), {}, title="poison")
        runs = await engine.list(limit=100)
        while any(not run.state.ended and run.state is not RunState.NEEDS_OPERATOR for run in runs):
            await asyncio.sleep(0.02)
            runs = await engine.list(limit=100)
        for run in runs:
            print(run.flow, run.state.value, run.error)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

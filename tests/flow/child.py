"""A process to be killed: `python -m tests.flow.child URL DIRECTORY start|finish`."""

import asyncio
import sys
from pathlib import Path

from skep.flow import Context, Database, FlowEngine, Registry, step

RUNS = 10
STEPS = 8


@step
async def touch(cx: Context[Path], name: str) -> str:
    await asyncio.sleep(0.01)
    (cx.env / f"made-{cx.run}-{name}").touch()
    return name


async def main(url: str, directory: Path, what: str) -> None:
    registry = Registry()
    registry.add_step(touch, "touch")
    lines = [
        f"  s{i}: {{use: touch, with: {{name: s{i}}}, after: [{f's{i - 1}' if i else ''}]}}"
        for i in range(STEPS)
    ]
    registry.add_flow("flow: chain\nsteps:\n" + "\n".join(lines), "chain.yaml")
    database = await Database.open(url)
    async with FlowEngine(database, registry, lambda _route: directory) as engine:
        if what == "start":
            for _ in range(RUNS):
                await engine.start("chain", {})
        print("started", flush=True)
        runs = await engine.list(limit=1000)
        for run in runs:
            print((await engine.wait(run.id)).state, flush=True)
        await asyncio.sleep(60 if what == "start" else 0)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))

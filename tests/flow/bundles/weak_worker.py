"""A worker that may lack the privileges to confine anything; prints what comes of a bundle.

Arguments: a directory, and `confined` or `unconfined`.
"""

import asyncio
import sys
from pathlib import Path

from tests.flow.bundles import samples

from skep.flow import Database, FlowEngine, Registry
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.loading import VersionLoader
from skep.flow.bundles.refusals import BundleRefused

CODE = """
@step
async def who(cx: Context[None]) -> list[int]:
    return [os.getuid(), os.getpid()]
"""
FLOW = "flow: go\nsteps: {a: {use: one.who}}\noutput: {a: $a}\n"


async def main(directory: Path, unconfined: bool) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{directory}/flow.db", durable=False)
    await FlowEngine.create_tables_in(database)
    registry = Registry()
    loader = VersionLoader(registry, directory / "cache", unconfined=unconfined, offline=True)
    async with (
        Bundles(database, registry, loader) as bundles,
        FlowEngine(database, bundles.registry, lambda _route: None) as engine,
    ):
        try:
            info = await bundles.push(samples.single(directory / "b", CODE, flow=FLOW))
        except BundleRefused as error:
            print("refused:", error)
        else:
            await bundles.activate(info.hash)
            record = await engine.wait(await engine.start("go", {}), 20)
            print("ran:", record.error or record.output["a"])
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] == "unconfined"))

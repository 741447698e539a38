"""A demonstration of skep's flow engine: `make demo-flows`, or `.venv/bin/python examples/flows/demo.py`.

Four short stories on a database in a temporary directory, every commit on the disk.  Ends with 1 if something
that is promised was not seen.
"""

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import hot_update
import office
import structlog
from office import Office
from sqlalchemy import text
from story import Story

from skep.flow import Database, FlowEngine, Registry, RunId, StepState
from skep.flow.bundles.bundles import Bundles
from skep.flow.bundles.loading import VersionLoader

HERE = Path(__file__).parent
READERS = 1000


async def a_failing_step_undoes(story: Story, engine: FlowEngine, world: Office) -> None:
    story.chapter("A step fails, and what was done is taken back  (trip.yaml)")
    await engine.wait(await engine.start("trip.book", {"traveller": "Kim", "city": "Riga", "card": "gold"}))
    story.tell("Kim's journey: booked and charged")
    before = dict(world.bookings)
    world.log.clear()

    run = await engine.start("trip.book", {"traveller": "Lee", "city": "Riga", "card": "declined"})
    ended = await engine.wait(run)

    for event in world.log:
        story.tell(f"Lee's journey: {event}")
    story.tell(f"Lee's journey: {ended.state}: {ended.error}")
    story.check("nothing of Lee's journey is left, all of Kim's is", world.bookings == before)
    story.check(
        "the guide went back before the hotel: the reverse of the order in which they depend on each other",
        world.log.index("gave back the guide") < world.log.index("gave back the hotel"),
    )


async def an_approval(story: Story, engine: FlowEngine, world: Office) -> None:
    story.chapter("Somebody is asked, but only where it matters  (purchase.yaml)")
    cheap = await engine.wait(await engine.start("purchase", {"item": "a pen", "price": 2}))
    story.tell(f"a pen for 2: {cheap.state}, nobody was asked")

    lamp = await engine.start("purchase", {"item": "a lamp", "price": 180})
    desk = await engine.start("purchase", {"item": "a desk", "price": 900})
    await asked(engine, lamp)
    for run, name in ((lamp, "a lamp"), (desk, "a desk")):
        for wait in await engine.why(run):
            story.tell(f"why {name}: {wait.step or 'the run'} {wait.state}: {wait.reasons[0].message}")
    await engine.approve(lamp, "ok", by="kim")
    bought = await engine.wait(lamp)
    story.tell(f"kim says yes to the lamp: {bought.state}, {bought.output['total']} spent")

    await asked(engine, desk)
    await engine.approve(desk, "ok", approved=False, by="kim", comment="too dear")
    refused = await engine.wait(desk)
    story.tell(f"kim says no to the desk: {refused.state}: {refused.error}")
    story.check("the pen and the lamp are paid, once each", bought.output["total"] == 182)
    story.check("the money for the desk is free again", "a desk" not in world.reserved)


async def a_fan_out(story: Story, engine: FlowEngine, world: Office) -> None:
    story.chapter(f"One step for each of {READERS:,}  (newsletter.yaml)")
    readers = [f"reader{number}@example.org" for number in range(READERS)]
    readers[7] = readers[500] = readers[900] = "moved away"

    began = time.monotonic()
    run = await engine.wait(await engine.start("newsletter", {"issue": "May", "readers": readers}))
    took = time.monotonic() - began

    story.tell(f"{run.state}: {run.output['sent']} letters in {took:.2f} s, {READERS / took:,.0f} a second")
    failed = [
        row.name for row in await engine.steps(run.id) if row.state in (StepState.FAILED, StepState.UNDONE)
    ]
    story.tell(f"came back: {', '.join(failed)}")
    story.check("three letters came back and the rest arrived", run.output["sent"] == READERS - 3)
    story.check(
        f"never more than 50 were on their way (most: {world.most_at_once})", world.most_at_once <= 50
    )


async def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    story, world = Story(), Office()
    with tempfile.TemporaryDirectory(prefix="skep-flows-") as directory:
        async with opened(Path(directory), world) as (engine, bundles):
            await a_failing_step_undoes(story, engine, world)
            await an_approval(story, engine, world)
            await a_fan_out(story, engine, world)
            await hot_update.tell(story, engine, bundles)
    return story.finish()


@asynccontextmanager
async def opened(directory: Path, world: Office) -> AsyncIterator[tuple[FlowEngine, Bundles]]:
    """An engine on a new database, with the steps and documents of this directory, and its bundles."""
    registry = Registry()
    registry.add_module(office)
    for name in ("trip", "purchase", "newsletter"):
        registry.add_flow((HERE / f"{name}.yaml").read_text(), f"{name}.yaml")
    database = await Database.open(f"sqlite+aiosqlite:///{directory / 'flows.db'}")
    await database.write(lambda c: c.execute(text("CREATE TABLE payments (item TEXT, price INTEGER)")))
    await FlowEngine.create_tables_in(database)
    loader = VersionLoader(registry, directory / "bundles", unconfined=True)
    try:
        async with (
            Bundles(database, registry, loader) as bundles,
            FlowEngine(database, bundles.registry, lambda _route: world) as engine,
        ):
            yield engine, bundles
    finally:
        await database.close()


async def asked(engine: FlowEngine, run: RunId) -> None:
    """Follow the run until it waits for somebody."""
    async for event in engine.follow(run):
        if event.kind == "waiting":
            return


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

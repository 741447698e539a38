"""The story of the hot update: people keep greeting while the code that greets is replaced, and put back."""

import asyncio
from collections import Counter
from pathlib import Path

from story import Story

from skep.flow import FlowEngine, RunId
from skep.flow.bundles.bundles import Bundles

HERE = Path(__file__).parent
PAUSE = 0.005
"""Seconds between two starts; a greeting takes ten times as long, so there are always some under way."""


class Load:
    """Starts a greeting every few milliseconds until it is told to stop; remembers what became of each."""

    def __init__(self, engine: FlowEngine) -> None:
        self.runs: list[RunId] = []
        self.errors: list[str] = []
        self._engine = engine
        self._enough = asyncio.Event()
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        self._enough.set()
        await self._task

    async def _go_on(self) -> None:
        while not self._enough.is_set():
            try:
                self.runs.append(await self._engine.start("greet", {"name": f"number {len(self.runs)}"}))
            except Exception as error:
                self.errors.append(str(error))
            await asyncio.sleep(PAUSE)


async def tell(story: Story, engine: FlowEngine, bundles: Bundles) -> None:
    story.chapter("New code under load, and back again  (greeting-1.0, greeting-2.0)")
    first = await bundles.push(HERE / "greeting-1.0", by="kim")
    await bundles.activate(first.hash, by="kim")
    story.tell(f"1.0 is active: {first.hash[:12]}")
    load = Load(engine)
    await asyncio.sleep(0.3)

    second = await bundles.push(HERE / "greeting-2.0", by="kim")
    story.tell(
        f"2.0 is pushed: {second.hash[:12]}; its code was loaded, its wiring checked; nothing uses it yet"
    )
    fates = await bundles.preflight(second.hash)
    verdicts = Counter(fate.verdict for fate in fates.fates)
    story.tell(f"preflight: {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}")
    before = len(load.runs)
    await bundles.activate(second.hash, by="kim")
    story.tell(f"2.0 is active; {before} greetings began with 1.0")
    await asyncio.sleep(0.3)
    await bundles.rollback("greeting", by="kim")
    story.tell(f"rolled back to 1.0 after {len(load.runs) - before} more")
    await asyncio.sleep(0.3)

    await load.stop()
    said = [str((await engine.wait(run)).output.get("said")) for run in load.runs]
    spoken = Counter(text[:3] for text in said)
    story.tell(
        f"{len(said)} greetings: {', '.join(f'{count} by {version}' for version, count in spoken.items())}"
    )
    story.check("no start failed, and every greeting was said", not load.errors and "None" not in said)
    story.check("each was said by the version that found its words", all(is_whole(text) for text in said))
    story.check("both versions spoke, and the last word is 1.0's", len(spoken) == 2 and said[-1][:3] == "1.0")


def is_whole(said: str) -> bool:
    """`1.0: Good day, … (said by 1.0)`"""
    return said.endswith(f"(said by {said[:3]})")

"""An agent that is killed again and again while it is told what to do, over a real broker that dies, too."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.agent.shelf import KEY
from tests.bus.broker import Broker, own_broker

from skep.agent.receipts import SqliteReceipts
from skep.bus.client import CallClient, Pace
from skep.bus.opening import open_bus
from skep.bus.stamps import Stamp, stamped

__all__ = ["own_broker"]

JARS = 200
KILLS = 5
PACE = Pace(first=0.5, longest=1.0, patience=60.0, patience_of_runs=60.0)
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def mortal(bus_url: str, folder: Path) -> AsyncIterator[None]:
    """An agent that is killed without a word."""
    (folder / "up").unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.agent.shelf", bus_url, folder), cwd=ROOT, env=os.environ
    )
    try:
        async with asyncio.timeout(20):
            while not (folder / "up").exists():
                await asyncio.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def put_then_take(client: CallClient, jar: str) -> None:
    """As a step and its undo; every other jar stays."""
    with stamped(Stamp(run=jar, step="put")):
        assert await client.tell(KEY, "shelf.put", str, {"jar": jar}) == jar
    if int(jar) % 2:
        with stamped(Stamp(run=jar, step="put", undoing=True)):
            assert await client.tell(KEY, "shelf.take", str, {"jar": jar}) == jar


async def many(client: CallClient) -> None:
    """A jar each 10 ms, whatever becomes of the ones before."""
    async with asyncio.TaskGroup() as tasks:
        for jar in range(JARS):
            tasks.create_task(put_then_take(client, str(jar)))
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_killed_agent_and_a_killed_broker_lose_and_double_nothing(
    own_broker: Broker, tmp_path: Path
) -> None:
    async with (
        open_bus(own_broker.url) as bus,
        CallClient(bus, "worker-of-the-killed", pace=PACE) as client,
    ):
        async with mortal(own_broker.url, tmp_path):
            telling = asyncio.create_task(many(client))
            await asyncio.sleep(0.3)
        for _ in range(KILLS):
            async with mortal(own_broker.url, tmp_path):
                await asyncio.sleep(0.4)
        own_broker.kill()
        own_broker.start()
        async with mortal(own_broker.url, tmp_path):
            await telling

    kept = {path.name for path in (tmp_path / "jars").iterdir()}
    assert kept == {str(jar) for jar in range(0, JARS, 2)}
    done = Counter((tmp_path / "diary").read_text().splitlines())
    assert len(done) == JARS + JARS // 2
    assert max(done.values()) <= KILLS + 2, "once for every death at most"
    async with SqliteReceipts(tmp_path / "receipts.db") as receipts:
        assert await receipts.unanswered() == []

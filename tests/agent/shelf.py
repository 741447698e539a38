"""An agent to be killed: jars on a shelf that outlives it, as containers outlive theirs.

`python -m tests.agent.shelf BUS FOLDER` serves until it is killed.
"""

import asyncio
import random
import sys
from pathlib import Path
from typing import Protocol

import uvloop

from skep.agent.receipts import SqliteReceipts
from skep.bus.methods import Methods
from skep.bus.opening import open_bus
from skep.bus.server import CallServer

KEY = "agent.mortal"


class Shelf(Protocol):
    async def put(self, jar: str) -> str: ...

    async def take(self, jar: str) -> str: ...


class FolderShelf:
    """A file for each jar, and a line in the diary for each time something was carried out."""

    def __init__(self, folder: Path) -> None:
        self.jars = folder / "jars"
        self.diary = folder / "diary"
        self.jars.mkdir(exist_ok=True)

    async def put(self, jar: str) -> str:
        await asyncio.sleep(random.uniform(0, 0.01))
        (self.jars / jar).touch()
        self._note(f"put {jar}")
        return jar

    async def take(self, jar: str) -> str:
        await asyncio.sleep(random.uniform(0, 0.01))
        (self.jars / jar).unlink(missing_ok=True)
        self._note(f"take {jar}")
        return jar

    def _note(self, line: str) -> None:
        with self.diary.open("a") as diary:
            diary.write(f"{line}\n")


async def serve(bus_url: str, folder: Path) -> None:
    methods = Methods("1")
    methods.add("shelf", Shelf, FolderShelf(folder))
    async with (
        open_bus(bus_url) as bus,
        SqliteReceipts(folder / "receipts.db") as receipts,
        CallServer(bus, KEY, methods, receipts),
    ):
        (folder / "up").touch()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2])))

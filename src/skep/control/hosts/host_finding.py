"""Keeps the directory of hosts as the database has it: who joined, moved elsewhere, or was removed."""

import asyncio
from collections.abc import Callable

import structlog

from skep.control.host_directory import HostDirectory
from skep.control.ports import Host
from skep.flow import Database
from skep.model.ids import HostName
from skep.model.topology import Liveness
from skep.store import hosts
from skep.store.hosts import HostRow

INTERVAL = 1.0
"""Seconds between two looks."""

log = structlog.get_logger("skep.hosts")


class HostFinder:
    """`connect` makes what reaches a host, which need not answer then; `left` hears of those removed.

    What was put into the directory by others is left alone.
    """

    def __init__(
        self,
        database: Database,
        directory: HostDirectory,
        connect: Callable[[HostRow], Host],
        left: Callable[[HostName], None],
    ) -> None:
        self._database = database
        self._directory = directory
        self._connect = connect
        self._left = left
        self._found: dict[HostName, str] = {}
        """Where each is reached."""
        directory.look_again = self.try_to_look

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.try_to_look()

    async def try_to_look(self) -> None:
        try:
            await self.look()
        except Exception as error:
            log.warning("hosts.unknown", error=str(error))

    async def look(self) -> None:
        async with self._database.read() as connection:
            rows = await hosts.every(connection)
        self._directory.learn(rows)
        there = {row.name: row for row in rows if row.address and row.state != Liveness.GONE}
        for name in self._found.keys() - there.keys():
            del self._found[name]
            self._directory.remove(name)
            self._left(name)
        for name, row in there.items():
            if self._found.get(name) != row.address:
                self._found[name] = row.address
                self._directory.add(name, self._connect(row))

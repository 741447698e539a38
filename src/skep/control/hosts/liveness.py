"""Who is there: hosts give signs of life, and one that is silent for too long is lost.

Lost is not dead.  What it runs is unknown, its addresses and disks stay its own, and nothing new is placed on
it until it is heard of again.  Time is the database's: the clocks of hosts and processes do not matter.
"""

import asyncio
from collections.abc import Callable, Iterable

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.bus.bus import Bus
from skep.control.clock import Now, rfc3339
from skep.control.host_directory import HostDirectory, silence
from skep.flow import Database
from skep.model.host import HostFacts
from skep.model.ids import HostName, TenantId
from skep.model.topology import PER_TIMEOUT, HostLoad, Liveness
from skep.model.views.apps import EventView
from skep.store import hosts, replicas, tenants
from skep.store.hosts import HostRow

log = structlog.get_logger("skep.liveness")


class HostNews:
    """Tells tenants what became of hosts that run something of theirs, and operators of every host."""

    def __init__(self, bus: Bus, now: Now) -> None:
        self._bus = bus
        self._now = now

    def tell(self, row: HostRow, concerned: Iterable[TenantId], message: str) -> None:
        log.info(f"host.{row.state}", host=row.name, message=message)
        event = EventView(
            kind="host", app="", name=row.name, state=row.state, at=rfc3339(self._now()), message=message
        )
        for tenant in concerned:
            self._bus.publish(f"event.{tenant}.host", msgspec.json.encode(event))


class Heartbeats:
    """Takes signs of life.  `wake`: called when a host is back, so that it is looked at soon."""

    def __init__(self, database: Database, news: HostNews, wake: Callable[[], None], timeout: float) -> None:
        self._database = database
        self._news = news
        self._wake = wake
        self._timeout = timeout

    async def heartbeat(
        self,
        host: HostName,
        *,
        facts: HostFacts | None = None,
        version: str | None = None,
        load: HostLoad | None = None,
    ) -> bool:
        """The host is there, and is what it says; False: it was removed, and should end.

        May be repeated, and come late: it says no more than that it came.
        """

        async def renew(connection: AsyncConnection) -> tuple[HostRow | None, list[TenantId]]:
            before = await hosts.renew(
                connection, host, self._timeout, facts=facts, version=version, load=load
            )
            back = before is not None and not before.answers
            return before, await concerned(connection, host) if back else []

        before, tenants_ = await self._database.write(renew)
        if before is not None and not before.answers:
            row = msgspec.structs.replace(before, state=Liveness.READY)
            self._news.tell(
                row, tenants_, "is there" if before.seen is None else f"{silence(before)}, and is back"
            )
            self._wake()
        return before is not None


class LivenessWatch:
    """Finds hosts whose lease has expired.  Every worker may watch; each loss is told once.

    Who has not watched for a whole timeout judges nobody: while control or its database was down, no host
    could be heard.
    """

    def __init__(
        self,
        database: Database,
        directory: HostDirectory,
        news: HostNews,
        timeout: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._directory = directory
        self._news = news
        self._timeout = timeout
        self._monotonic = monotonic
        self._since = self._last = monotonic()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                log.warning("liveness.unknown", error=str(error))
            await asyncio.sleep(self._timeout / PER_TIMEOUT)

    async def look(self) -> None:
        """Once: whoever is silent for too long is lost from now on."""
        async with self._database.read() as connection:
            silent = await hosts.silent(connection)
            self._directory.learn(await hosts.every(connection))
        watched = self._has_watched()
        if silent and watched:
            await self._lose(silent)

    def _has_watched(self) -> bool:
        """Without a gap in which signs of life may not have been written."""
        time = self._monotonic()
        if time - self._last > self._timeout / 2:
            self._since = time
        self._last = time
        return time - self._since >= self._timeout

    async def _lose(self, silent: list[HostName]) -> None:
        async def lose(connection: AsyncConnection) -> list[tuple[HostRow, list[TenantId]]]:
            lost = await hosts.lose(connection, silent)
            return [(row, await concerned(connection, row.name)) for row in lost]

        for row, tenants_ in await self._database.write(lose):
            self._news.tell(row, tenants_, f"{silence(row)}; what it runs is unknown")
        async with self._database.read() as connection:
            self._directory.learn(await hosts.every(connection))


async def concerned(connection: AsyncConnection, host: HostName) -> list[TenantId]:
    """Those who have something there, and the operators."""
    users = {row.tenant_id for row in await replicas.on_host(connection, host)}
    operators = await tenants.by_name(connection, "default")
    return sorted(users | ({operators.id} if operators else set()))

"""Hosts that are to be emptied stay so until they are: what could not go yet is tried again and again."""

from collections import defaultdict
from collections.abc import Callable

import structlog

from skep.control.apps.draining import Draining
from skep.control.reconcilers.backoff import Backoff
from skep.flow import Database
from skep.model.errors import SkepError
from skep.model.ids import AppId, HostName
from skep.store import hosts, replicas

log = structlog.get_logger("skep.emptying")


class Emptying:
    """One per process; the reconciler that leads calls it.  A move that fails is tried ever more rarely."""

    def __init__(self, database: Database, draining: Draining, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._draining = draining
        self._attempts = defaultdict[HostName, Backoff](lambda: Backoff(monotonic))

    async def reconcile(self) -> None:
        async with self._database.read() as connection:
            rows = await hosts.every(connection)
            there = {row.name: await replicas.on_host(connection, row.name) for row in rows if row.leaving}
        for host, members in there.items():
            self._attempts[host].keep_only({member.app_id for member in members})
            if members:
                await self._empty(host)
        if any(row.given_up for row in rows):
            await self._database.write(hosts.forget_the_gone)

    async def _empty(self, host: HostName) -> None:
        attempts = self._attempts[host]

        def may(app: AppId) -> bool:
            ready = attempts.ready(app)
            if ready:
                attempts.attempted(app)
            return ready

        try:
            found = await self._draining.move_off(host, may)
        except SkepError as error:
            log.warning("host.not-emptied", host=host, error=error.message)
            return
        for run in found.runs:
            log.info("host.emptied", host=host, run=run)

"""Which host leads a network outside: chosen when it gets an egress address, and anew when that host is lost.

Hosts hear of it with their peers (`peering.py`): one has the address, the others lead there.
"""

import asyncio
from collections import Counter
from collections.abc import Collection

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.host_directory import HostDirectory
from skep.control.ports import Desired
from skep.control.telling.peering import Peering
from skep.flow import Database
from skep.model.errors import SkepError
from skep.model.ids import HostName, NetworkId
from skep.store import egress, hosts
from skep.store.egress import EgressRow
from skep.store.hosts import HostRow
from skep.store.turns import Turn, take_turn

PATIENCE = 5.0
"""Seconds that a host may take to make a network that it is to lead outside."""

log = structlog.get_logger("skep.egressing")


def holder(row: EgressRow, known: Collection[HostRow], load: Counter[HostName]) -> HostName | None:
    """The host that should lead the network outside; None: no host of the zone can.

    Who has it keeps it while it answers, whatever else is free: each change ends what is connected.  Others
    reach the host by its address between hosts, which one that is alone does without.
    """
    able = [
        one for one in known if one.zone == row.zone and one.answers and (one.underlay or len(known) == 1)
    ]
    if any(one.name == row.host for one in able):
        return row.host
    active = [one for one in able if one.schedulable] or able
    return min((one.name for one in active), key=lambda name: (load[name], name), default=None)


async def settle(connection: AsyncConnection) -> list[EgressRow]:
    """Give every network with an egress address a host that can lead it outside; what changed, as it was."""
    await take_turn(connection, Turn.CLAIMING)
    rows = list((await egress.by_network(connection)).values())
    known = await hosts.every(connection) if rows else []
    load = Counter(row.host for row in rows if row.host is not None)
    changed = []
    for row in rows:
        chosen = holder(row, known, load)
        if chosen != row.host:
            load.update([chosen] if chosen else [])
            await egress.assign(connection, row.id, row.network_id, chosen)
            changed.append(row)
    return changed


class Egressing:
    """One per process."""

    def __init__(
        self, database: Database, directory: HostDirectory, desired: Desired, peering: Peering
    ) -> None:
        self._database = database
        self._directory = directory
        self._desired = desired
        self._peering = peering

    async def reconcile(self) -> None:
        """See to it that every network with an egress address is led outside by a host that answers."""
        if not await self._due():
            return
        before = await self._database.write(settle)
        for row in before:
            log.warning("egress.moved", network=row.network_id, lost=row.host)
        left = [row.host for row in before if row.host is not None]
        await self.announce([row.network_id for row in before if row.network_id is not None], left)

    async def announce(self, chosen: Collection[NetworkId], left: Collection[HostName] = ()) -> None:
        """Make the networks on the hosts that lead them outside, and tell all; `left` led them before."""
        async with self._database.read() as connection:
            found = await egress.by_network(connection, chosen)
        await asyncio.gather(*(self._ensure(network, row.host) for network, row in found.items()))
        await self._peering.announce(chosen, left)

    async def _due(self) -> bool:
        """Whether anything has to change, which is seldom: nothing is written otherwise."""
        async with self._database.read() as connection:
            rows = list((await egress.by_network(connection)).values())
            known = await hosts.every(connection) if rows else []
        load = Counter(row.host for row in rows if row.host is not None)
        return any(holder(row, known, load) != row.host for row in rows)

    async def _ensure(self, network: NetworkId, host: HostName | None) -> None:
        """What does not succeed now the reconciler does."""
        if host is None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                wanted = await self._desired.network(network)
                there = await self._directory.answering(host)
                await there.fabric.ensure_network(wanted)
        except (SkepError, TimeoutError) as error:
            log.warning("egress.unready", network=network, host=host, error=str(error))
        self._peering.forget(host, network)

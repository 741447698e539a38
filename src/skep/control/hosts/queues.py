"""How it stands with the bus: what waits for whom, and what nobody could carry out.  For operators."""

import msgspec

from skep.bus.bus import Bus, DeadLetter
from skep.bus.calls import Call, decode
from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.hosts.zone_desk import key_of
from skep.flow import Database
from skep.model.views.system import DeadLetterView, QueueView
from skep.store import hosts


class Queues:
    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    async def dead(self, caller: Caller, limit: int = 100) -> list[DeadLetterView]:
        """What was tried too often, oldest first; without what it says, which may be secret."""
        caller.must_operate()
        return [_view(letter) for letter in await self._bus.dead(limit)]

    async def list(self, caller: Caller) -> list[QueueView]:
        """Of every host and every zone's workers, as far as there is one.  Raises Unavailable."""
        caller.must_operate()
        async with self._database.read() as connection:
            keys = [f"agent.{row.name}" for row in await hosts.every(connection)]
            keys += [key_of(row.name) for row in await hosts.every_zone(connection)]
        depths = await self._bus.depths(keys)
        return [
            QueueView(key=key, waiting=depth.waiting, servers=depth.servers)
            for key, depth in sorted(depths.items())
        ]


def _view(letter: DeadLetter) -> DeadLetterView:
    try:
        method = decode(letter.message.body, Call).method
    except msgspec.MsgspecError:
        method = "unreadable"
    return DeadLetterView(id=letter.message.id, key=letter.key, method=method, at=rfc3339(letter.at))

"""The kill loop: a data centre under load of which one part after the other is killed."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.cluster.customers import Client, Customer, Failure
from tests.cluster.datacentre import DataCentre
from tests.cluster.killing import Killer, Recovery

CUSTOMERS = 3
KINDS = ("worker", "api", "agent", "broker", "database", "partition")


@dataclass(frozen=True)
class Siege:
    """What came of it."""

    customers: list[Customer]
    recoveries: list[Recovery]
    client: Client

    @property
    def lost(self) -> list[str]:
        """Changes that were accepted and did not end as they should."""
        return [change for customer in self.customers for change in customer.lost]

    @property
    def unexcused(self) -> list[Failure]:
        """Errors of API processes that had no reason for it."""
        return [failure for failure in self.client.failures if not failure.excused]

    def __str__(self) -> str:
        changes = sum(customer.changes for customer in self.customers)
        lines = [
            f"{changes} changes, {self.client.asked} requests, {len(self.client.failures)} without answer"
        ]
        lines += [f"{one.kind:24} {one.victim:10} {one.took:6.2f} s" for one in self.recoveries]
        lines += [f"{one.api.name} {one.request}: {one.reason}" for one in self.client.failures]
        return "\n".join(lines)


async def besiege(
    centre: DataCentre, chance: random.Random, kills: int, kinds: Sequence[str] = KINDS
) -> Siege:
    """Returns when everybody has come to the end of what he did; then all must be in order soon."""
    client = Client(centre, chance)
    customers = [Customer(client, f"app-{number}") for number in range(CUSTOMERS)]
    killer = Killer(centre, client, chance)
    await killer.prepare()
    async with _shopping(customers):
        for kind in _sequence(chance, kinds, kills):
            await killer.kinds[kind]()
            await asyncio.sleep(chance.uniform(0, 1))
    return Siege(customers, killer.recoveries, client)


@asynccontextmanager
async def _shopping(customers: list[Customer]) -> AsyncIterator[None]:
    """Until the block ends; then each comes to the end of what it does."""
    stop = asyncio.Event()
    at_it = [asyncio.create_task(customer.shop(stop)) for customer in customers]
    try:
        yield
        stop.set()
        await asyncio.gather(*at_it)
    finally:
        for one in at_it:
            one.cancel()


def _sequence(chance: random.Random, kinds: Sequence[str], length: int) -> list[str]:
    """Each kind in turn, in another order each time."""
    found: list[str] = []
    while len(found) < length:
        found += chance.sample(kinds, len(kinds))
    return found[:length]

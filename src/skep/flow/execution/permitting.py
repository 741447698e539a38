"""Where several workers share a database: steps with limits get permits from all, then a slot here."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from skep.flow.admission.policies import Policies
from skep.flow.admission.tickets import Ticket, Use
from skep.flow.errors import CommitFailed, Fenced
from skep.flow.runs import Reason
from skep.flow.steps import RunId
from skep.flow.storage.permits import SharedPermits
from skep.flow.storage.tally import Wanted

log = structlog.get_logger(__name__)

POLL = 1.0
"""Seconds after which those who wait ask again, should nobody wake them."""


class Permitting:
    """`permitted(ticket)` is told of each that may go, as far as the limits are concerned."""

    def __init__(
        self, policies: Policies, permits: SharedPermits, permitted: Callable[[Ticket], None]
    ) -> None:
        self._policies = policies
        self._permits = permits
        self._permitted = permitted
        self._waiting: dict[Ticket, tuple[Use, ...]] = {}
        self._reasons: dict[Ticket, Reason] = {}
        self._holding: set[Ticket] = set()
        self._released: list[tuple[RunId, str]] = []
        self._something = asyncio.Event()
        self._task = asyncio.create_task(self._go_round(), name="flow-permits")

    def takes(self, ticket: Ticket) -> bool:
        """Whether the ticket has limits, and so must wait for permits."""
        limits = self._policies.limits_of(ticket)
        if not limits:
            return False
        self._waiting[ticket] = limits
        self._something.set()
        return True

    def withdraw(self, ticket: Ticket) -> None:
        self._reasons.pop(ticket, None)
        if self._waiting.pop(ticket, None) is None:
            self.finished(ticket)

    def finished(self, ticket: Ticket) -> None:
        if ticket in self._holding:
            self._holding.discard(ticket)
            self._released.append((ticket.run, ticket.step))
            self._something.set()

    def why(self, ticket: Ticket) -> Reason | None:
        """What it waited for when it was last asked about."""
        if ticket not in self._waiting:
            return None
        limits = ", ".join(use.key for use in self._waiting[ticket])
        asked = Reason(kind="limit", subject=limits, message=f"It asks for its limits: {limits}.")
        return self._reasons.get(ticket, asked)

    def wake(self) -> None:
        """Somebody gave permits back, or limits have changed."""
        self._something.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _go_round(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL if self._waiting else None):
                    await self._something.wait()
            except TimeoutError:
                pass
            self._something.clear()
            try:
                await self._ask()
            except Fenced:
                return
            except CommitFailed as error:
                log.warning("flow.permits_failed", error=str(error))
                await asyncio.sleep(POLL)
                self._something.set()
            except Exception:  # of one ticket, perhaps: the others wait, too
                log.exception("flow.defect")
                await asyncio.sleep(POLL)
                self._something.set()

    async def _ask(self) -> None:
        released, self._released = self._released, []
        if released:
            try:
                await self._permits.release(released)
            except CommitFailed:
                self._released += released
                raise
        tickets = sorted(self._waiting, key=lambda ticket: (ticket.priority, ticket.run))
        self._answer(tickets, await self._permits.acquire([self._wanted(ticket) for ticket in tickets]))

    def _wanted(self, ticket: Ticket) -> Wanted:
        limits = self._waiting[ticket] = self._policies.limits_of(ticket)
        return Wanted(ticket.run, ticket.step, ticket.priority, limits)

    def _answer(self, tickets: Sequence[Ticket], reasons: Sequence[Reason | None]) -> None:
        for ticket, reason in zip(tickets, reasons, strict=True):
            if reason is not None:
                if ticket in self._waiting:
                    self._reasons[ticket] = reason
                continue
            self._holding.add(ticket)
            if self._waiting.pop(ticket, None) is None:
                self.finished(ticket)  # it was withdrawn meanwhile
                continue
            self._reasons.pop(ticket, None)
            self._permitted(ticket)

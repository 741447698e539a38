"""What admission notes of a ticket that waits, or that counts against limits while it is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skep.flow.admission.tickets import Ticket, Use

if TYPE_CHECKING:
    from skep.flow.admission.fairness import FairLine, Share
    from skep.flow.admission.limits import Meter


class Entry:
    """It waits in a `line`: that of its lane, or that before the meter at which it is `parked`.

    Lower numbers are older.  `charged`: the shares to which its `cost` was counted, with their lines.
    """

    __slots__ = (
        "asked",
        "charged",
        "cost",
        "line",
        "meters",
        "number",
        "parked",
        "ready",
        "resolved",
        "ticket",
        "turn",
    )

    def __init__(self, ticket: Ticket, number: int, resolved: int = 0) -> None:
        self.ticket = ticket
        self.number = number
        self.line: FairLine | None = None
        self.parked: Meter | None = None
        self.ready = False
        """It stands before the slots, with a place of each of its limits in sight."""
        self.turn = False
        """A key has let others pass so often that it is this one's turn."""
        self.meters: tuple[Meter, ...] = ()
        self.asked: tuple[Use | None, ...] = ()
        """What its document allows, for each of the meters."""
        self.resolved = resolved
        """The version of the limits by which `meters` were found."""
        self.cost = 0.0
        self.charged: tuple[tuple[FairLine, Share], ...] = ()

"""Which steps may go now."""

from collections import deque
from collections.abc import Callable, Mapping

from skep.flow.admission.policies import Policies
from skep.flow.admission.tickets import Ticket
from skep.flow.runs import Reason


class Admission:
    """First come, first served, in `slots`."""

    def __init__(self, slots: int, *, monotonic: Callable[[], float], policies: Policies) -> None:
        self._free = slots
        self._queue: deque[Ticket] = deque()

    def submit(self, ticket: Ticket) -> bool:
        if self._free > 0:
            self._free -= 1
            return True
        self._queue.append(ticket)
        return False

    def withdraw(self, ticket: Ticket) -> None:
        if ticket in self._queue:
            self._queue.remove(ticket)

    def admit(self) -> list[Ticket]:
        admitted = []
        while self._free > 0 and self._queue:
            self._free -= 1
            admitted.append(self._queue.popleft())
        return admitted

    def finished(self, ticket: Ticket, seconds: float) -> None:
        self._free += 1

    def wake_at(self) -> float | None:
        return None

    def why(self, ticket: Ticket) -> Reason:
        return Reason(kind="slot", subject=ticket.step, message="It waits for a free slot.")

    def depths(self) -> Mapping[int, int]:
        return {}

"""Which runs may begin."""

from collections.abc import Callable, Sequence

from skep.flow.admission.locks import Locks
from skep.flow.runs import Claim, Reason
from skep.flow.steps import RunId


class RunGate:
    """Locks only."""

    def __init__(self) -> None:
        self._locks = Locks()

    def request(
        self, run: RunId, claims: Sequence[Claim], priority: int, granted: Callable[[], None]
    ) -> None:
        self._locks.request(run, [claim.key for claim in claims], granted)

    def release(self, run: RunId) -> None:
        self._locks.release(run)

    def why(self, run: RunId) -> tuple[Reason, ...]:
        return ()

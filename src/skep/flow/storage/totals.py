"""What a database's writer has done since it was opened; metrics are made of it."""

from dataclasses import dataclass


@dataclass(slots=True)
class Totals:
    """Only ever growing."""

    commits: int = 0
    failed: int = 0
    """Transactions that were taken back as a whole."""
    changes: int = 0
    rows: int = 0
    """Of runs, steps, events and the like, as the engine's journal wrote them."""
    seconds: float = 0.0
    """That commits took, without what went before them in their transactions."""

    def committed(self, changes: int, seconds: float) -> None:
        self.commits += 1
        self.changes += changes
        self.seconds += seconds

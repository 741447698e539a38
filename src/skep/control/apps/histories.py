"""What came before a release, and what it changed.  Pure: the releases of an app, the newest first."""

from collections.abc import Sequence

from skep.control.apps.release_diff import differences, in_a_line, shape
from skep.control.apps.retention import AUTOSCALER, IN_FORCE
from skep.model.views.releases import DifferenceView
from skep.store.releases import ReleaseRow

MOST = 10
"""Releases that a message names."""


def before(history: Sequence[ReleaseRow], row: ReleaseRow) -> ReleaseRow | None:
    """The one that was in force until this one was, or would have been."""
    older = (one for one in history if one.revision < row.revision and one.state in IN_FORCE)
    return max(older, key=lambda one: one.revision, default=None)


def before_by_hand(history: Sequence[ReleaseRow], row: ReleaseRow) -> ReleaseRow | None:
    """The one that was in force before somebody made the app what it is; scaling itself does not count."""
    while row.created_by == AUTOSCALER and (older := before(history, row)) is not None:
        row = older
    found = before(history, row)
    while found is not None and found.created_by == AUTOSCALER:
        found = before(history, found)
    return found


def between(first: ReleaseRow | None, second: ReleaseRow) -> tuple[DifferenceView, ...]:
    made_of = shape(first.spec, first.images) if first else {}
    return differences(made_of, shape(second.spec, second.images))


def changed(history: Sequence[ReleaseRow], row: ReleaseRow) -> str:
    """How it differs from the one before, in a line."""
    older = before(history, row)
    if older is None:
        return "first release" if row.revision == 1 else ""
    return in_a_line(between(older, row)) or "nothing but new containers"


def since(history: Sequence[ReleaseRow], revision: int) -> str:
    """What came into force after a revision, in words; "" is nothing."""
    newer = [row for row in history if row.revision > revision and row.state in IN_FORCE][:MOST]
    told = (
        f"revision {row.revision} by {row.created_by} ({row.note or changed(history, row)})" for row in newer
    )
    return "; ".join(told)

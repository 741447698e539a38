"""A release that comes into force, and what an app has become meanwhile."""

import msgspec

from skep.model.views.apps import AppView
from skep.model.views.base import View


class RolloutService(View, frozen=True, kw_only=True):
    """Replicas of the release before (`old`) and of this one (`new`), of which so many are `ready`.

    `weights`: the shares of new connections of both together.
    """

    service: str
    old: int
    new: int
    ready: int
    old_weight: int
    new_weight: int


class RolloutView(View, frozen=True, kw_only=True):
    """The last release of an app, whether it is under way or has ended."""

    app: str
    run: str
    revision: int
    note: str = ""
    strategy: str
    state: str
    """As of runs."""
    phase: str
    """What is done now, in words, or how it ended."""
    done: int
    total: int
    services: tuple[RolloutService, ...] = ()
    waits: tuple[str, ...] = ()
    """What it waits for."""
    created: str
    finished: str | None = None
    deadline_in: float | None = None
    """Seconds until it is taken back if it is not in force by then."""
    error: str = ""
    """Why it failed: what is known of the replica that did not come up."""


class DriftView(View, frozen=True, kw_only=True):
    """Something that is not as the current release says, and what becomes of it."""

    what: str
    is_: str = msgspec.field(name="is")
    wanted: str
    doing: str


class ScaleView(View, frozen=True, kw_only=True):
    """A service that scales by itself: how many replicas it has come to, and by what."""

    service: str
    replicas: int
    policy: str


class AppStatus(View, frozen=True, kw_only=True):
    """`drift` empty: the app is what its current release says."""

    app: AppView
    rollout: RolloutView | None = None
    drift: tuple[DriftView, ...] = ()
    scales: tuple[ScaleView, ...] = ()

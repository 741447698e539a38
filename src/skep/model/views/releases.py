"""The releases of an app: one of them, and how two differ."""

from typing import Any

from skep.model.spec import AppSpec
from skep.model.views.base import View


class ReleaseView(View, frozen=True, kw_only=True):
    id: str
    app: str
    revision: int
    created: str
    created_by: str
    current: bool
    services: tuple[str, ...]
    images: dict[str, str]
    """Image digest by service."""
    state: str = ""
    """pending, current, superseded, failed"""
    note: str = ""
    """Why it was made, in words."""
    changed: str = ""
    """How it differs from the one that was in force before it, in a line."""


class DifferenceView(View, frozen=True, kw_only=True):
    """One value that differs, by where it is in the specification: `services.web.environment.MODE`.

    None is where there is none.  An image is its reference with its digest, a config or secret its digest.
    """

    path: str
    before: Any = None
    after: Any = None


class ReleaseDetail(View, frozen=True, kw_only=True):
    """`differences`: from the release that was in force before it."""

    release: ReleaseView
    spec: AppSpec
    differences: tuple[DifferenceView, ...]


class ReleaseDiff(View, frozen=True, kw_only=True):
    """What has to change to come from revision `before` to revision `after`."""

    app: str
    before: int
    after: int
    differences: tuple[DifferenceView, ...]

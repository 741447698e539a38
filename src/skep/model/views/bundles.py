"""Bundles, and what one would do to the runs under way."""

from typing import Any

from skep.model.views.base import View


class BundleView(View, frozen=True, kw_only=True):
    hash: str
    name: str
    version: str
    description: str
    active: bool
    process: str
    steps: tuple[str, ...]
    """Its modules."""
    requirements: tuple[str, ...]
    rights: dict[str, Any]
    by: str
    pushed: str


class FateView(View, frozen=True, kw_only=True):
    """What would become of one run; `verdict`: finishes on old, can be migrated, blocked."""

    run: str
    flow: str
    verdict: str
    reasons: tuple[str, ...]


class PreflightView(View, frozen=True, kw_only=True):
    bundle: BundleView
    fates: tuple[FateView, ...]

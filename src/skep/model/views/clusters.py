"""What a Kubernetes cluster is good for, as the engine of a zone."""

from typing import Literal

from skep.model.views.base import View

Verdict = Literal["works", "limited", "missing"]
"""`limited`: some apps are refused, or have less.  `missing`: no zone without it."""


class FindingView(View, frozen=True, kw_only=True):
    """One thing that was looked at.  `remedy`: what the cluster's operator can do about it, if anything."""

    subject: str
    verdict: Verdict
    message: str
    remedy: str = ""


class ClusterCheck(View, frozen=True, kw_only=True):
    """`usable`: nothing that a zone must have is missing."""

    server: str
    version: str
    usable: bool
    findings: list[FindingView]


class RightsView(View, frozen=True, kw_only=True):
    """Manifests that give skep's account in a cluster the rights it needs, and no others."""

    manifest: str


class ClusterZoneView(View, frozen=True, kw_only=True):
    """A zone that stands on a cluster.  `host`: how control sees it, as if it were one machine.

    `state` is the host's.  `check`: what works there now; null while the cluster does not answer.
    """

    zone: str
    region: str
    host: str
    state: str
    server: str
    context: str | None
    registry: str
    check: ClusterCheck | None
    trouble: str = ""
    """Why nothing is known of what works there."""

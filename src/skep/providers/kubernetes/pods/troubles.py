"""What the cluster's events say of a pod that waits, in words for whoever can act.  Pure.

A pod tells by itself why no node takes it and why its image does not come (`words`).  That nothing makes its
disk, that it cannot be mounted, that no pod may be made at all: only events tell.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lightkube.resources.core_v1 import Event

from skep.providers.kubernetes.pods.seen import SeenPod

_CLAIM, _POD = "PersistentVolumeClaim", "Pod"
_PROVISIONER = re.compile(r'external provisioner "(?P<who>[^"]+)"')
_FORBIDDEN = re.compile(r"is forbidden: (?P<why>.*)", re.S)
_PROBE = re.compile(r"(?:Readiness|Startup|Liveness) probe (?:failed|errored): ?(?P<said>.*)", re.S)
_TAKEN = re.compile(r"already assigned in block|resource already exists|AddressConflict|NoAvailableAddress")
_OUTSIDE = re.compile(r"not in a configured pool|AddressOutOfRange")
_UNTOLD = re.compile(r"no address allocated to pod")
"""Kube-OVN tells the reason in an event of its own."""
_LONGEST = 400
EVERYDAY = frozenset(
    {
        *("ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete", "Scheduled", "SuccessfulAttachVolume"),
        *("Pulling", "Pulled", "Created", "Started", "Killing", "ProvisioningSucceeded"),
    }
)
"""Reasons of events that never say what is wrong: nearly all of those of a cluster that starts many pods."""


@dataclass(frozen=True)
class Said:
    """One event.  `at`: seconds since 1970."""

    kind: str
    name: str
    reason: str
    message: str = ""
    uid: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Subject:
    """What waits: its pod, if it has one, the name of what carries it, and the claims that it mounts."""

    carrier: str
    claims: frozenset[str] = frozenset()
    pod: SeenPod | None = None


@dataclass(frozen=True)
class Trouble:
    """`why` it does not run; `check`: what its health check answered last."""

    why: str = ""
    check: str = ""


def said(event: Event) -> Said:
    """Newer clusters count and date what happens again in other fields than older ones."""
    of, series = event.involvedObject, event.series
    last = series and series.lastObservedTime
    at = (
        last
        or event.lastTimestamp
        or event.eventTime
        or (event.metadata and event.metadata.creationTimestamp)
    )
    return Said(
        kind=of.kind or "",
        name=of.name or "",
        uid=of.uid or "",
        reason=event.reason or "",
        message=(event.message or "").strip(),
        at=at.timestamp() if at else 0.0,
    )


def trouble(events: Iterable[Said], of: Subject) -> Trouble:
    """The last word of each; nothing of what is over."""
    about = sorted((one for one in events if _is_about(one, of)), key=lambda one: one.at)
    why = next((words for one in reversed(about) if (words := _why(one, of))), "")
    check = next((words for one in reversed(about) if (words := _check(one))), "")
    return Trouble(_short(why), _short(check))


def _is_about(one: Said, of: Subject) -> bool:
    match one.kind:
        case "Pod":
            return of.pod is not None and (one.name, one.uid) == (of.pod.name, of.pod.uid)
        case "PersistentVolumeClaim":
            return one.name in of.claims
        case "ReplicaSet":
            return one.name.rpartition("-")[0] == of.carrier
        case "StatefulSet" | "Deployment":
            return one.name == of.carrier
        case _:
            return False


def _why(one: Said, of: Subject) -> str:
    placed = of.pod is not None and bool(of.pod.node)
    if one.kind == _CLAIM:
        # What keeps a claim waiting is said again and again: what is older than the pod was about another.
        return _of_claim(one) if of.pod and not placed and one.at >= of.pod.made else ""
    if one.kind == _POD:
        return _of_pod(one) if placed and of.pod and not of.pod.running else ""
    return _unmade(one.message) if one.reason == "FailedCreate" and of.pod is None else ""


def _of_claim(one: Said) -> str:
    match one.reason:
        case "ExternalProvisioning":
            found = _PROVISIONER.search(one.message)
            who = found["who"] if found else "somebody outside of the cluster"
            return f"Its disk waits for {who}, which has not made it: look whether that storage driver runs."
        case "ProvisioningFailed":
            return f"Its disk cannot be made: {one.message}"
        case "FailedBinding":
            return f"Its disk waits for a volume: {one.message}"
        case _:
            return ""


def _of_pod(one: Said) -> str:
    match one.reason:
        case "FailedAttachVolume" if "Multi-Attach" in one.message:
            return (
                "Its disk is still attached to another node: it goes on when the pod there has ended, or "
                "when that node, off for good, is given up: kubectl delete node NAME"
            )
        case "FailedAttachVolume":
            return f"Its disk cannot be attached to its node: {one.message}"
        case "FailedMount":
            return f"What it mounts cannot be mounted on its node: {one.message}"
        case "FailedCreatePodSandBox" | "AcquireAddressFailed" if words := _of_address(one.message):
            return words
        case "FailedCreatePodSandBox" if _UNTOLD.search(one.message):
            return ""
        case "FailedCreatePodSandBox":
            return f"Its node cannot give it a network: {one.message}"
        case _:
            return ""


def _of_address(message: str) -> str:
    """Of one that is fixed."""
    if _TAKEN.search(message):
        return (
            "Its fixed address is another pod's: it starts when that gives it back, or apply it with another "
            "address, best of a pool that nobody has addresses of unasked."
        )
    if _OUTSIDE.search(message):
        return "Its fixed address is not in any pool of the cluster any more: apply it with another one."
    return ""


def _unmade(message: str) -> str:
    found = _FORBIDDEN.search(message)
    return f"The cluster does not let its pod be made: {found['why'] if found else message}"


def _check(one: Said) -> str:
    found = _PROBE.search(one.message) if (one.kind, one.reason) == (_POD, "Unhealthy") else None
    return (found["said"].strip() or one.message) if found else ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

"""What skep looks at in a pod.  Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lightkube.resources.core_v1 import Pod

from skep.model.ids import ContainerId
from skep.providers.kubernetes.pods.templates import CONTAINER

LABEL = "skep.dev/"


@dataclass(frozen=True)
class Ended:
    """How a process ended.  `at` and `started`: seconds since 1970."""

    code: int
    reason: str = ""
    message: str = ""
    at: float | None = None
    started: float | None = None

    @property
    def never_ran(self) -> bool:
        """There was no process: its program could not be started."""
        return self.reason in ("StartError", "ContainerCannotRun")


@dataclass(frozen=True)
class SeenPod:
    """`waiting`: why kubelet does not run the container now, in its words: (reason, message)."""

    name: str
    namespace: str
    uid: str = ""
    made: float = 0.0
    """When it was: seconds since 1970."""
    container: ContainerId | None = None
    labelled: bool = False
    """Whether it says itself which container it is; another process would not know of others."""
    carrier: str = ""
    member: bool = False
    """Whether it counts for its Deployment."""
    attempt: int = 0
    node: str = ""
    address: str = ""
    node_address: str = ""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    deleting: bool = False
    unschedulable: str = ""
    ready: bool = False
    ready_changed: float = 0.0
    """When that was last otherwise."""
    restarts: int = 0
    since: float | None = None
    """Since when it runs; None: it does not."""
    waiting: tuple[str, str] | None = None
    ended: Ended | None = None
    ended_before: Ended | None = None

    @property
    def running(self) -> bool:
        return self.since is not None

    @property
    def over(self) -> bool:
        """Nothing runs in it, and nothing will."""
        return self.phase in ("Succeeded", "Failed")


def see(pod: Pod) -> SeenPod:
    meta, status = pod.metadata, pod.status
    labels = (meta and meta.labels) or {}
    container = labels.get(f"{LABEL}container")
    main = _main(status)
    return SeenPod(
        name=(meta and meta.name) or "",
        namespace=(meta and meta.namespace) or "",
        uid=(meta and meta.uid) or "",
        made=_seconds(meta.creationTimestamp if meta else None) or 0.0,
        container=ContainerId(container) if container else None,
        labelled=bool(container),
        carrier=labels.get(f"{LABEL}carrier", ""),
        member=f"{LABEL}member" in labels,
        attempt=int(labels.get(f"{LABEL}attempt", "0")),
        node=(pod.spec and pod.spec.nodeName) or "",
        address=(status and status.podIP) or "",
        node_address=(status and status.hostIP) or "",
        phase=(status and status.phase) or "Pending",
        reason=(status and status.reason) or "",
        message=(status and status.message) or "",
        deleting=bool(meta and meta.deletionTimestamp),
        unschedulable=_unschedulable(status),
        **_readiness(status),
        restarts=(main and main.restartCount) or 0,
        **_states(status, main),
    )


def _main(status: Any) -> Any:
    found = (status and status.containerStatuses) or ()
    return next((one for one in found if one.name == CONTAINER), None)


def _states(status: Any, main: Any) -> dict[str, Any]:
    state, last = main and main.state, main and main.lastState
    running = state and state.running
    waiting = _waiting(state) or _before(status)
    return {
        "since": (_seconds(running.startedAt) or 0.0) if running else None,
        "waiting": waiting,
        "ended": _ended(state and state.terminated),
        "ended_before": _ended(last and last.terminated),
    }


def _waiting(state: Any) -> tuple[str, str] | None:
    found = state and state.waiting
    if not found or found.reason in (None, "PodInitializing", "ContainerCreating"):
        return None
    return found.reason, found.message or ""


def _before(status: Any) -> tuple[str, str] | None:
    """Why what runs before the container (the copying onto empty disks) does not come to its end."""
    for one in (status and status.initContainerStatuses) or ():
        if found := _waiting(one.state):
            return found
        if (ended := _ended(one.state and one.state.terminated)) and ended.code:
            return "Init:Error", ended.message or f"{one.name} exited with {ended.code}"
    return None


def _ended(found: Any) -> Ended | None:
    if not found:
        return None
    return Ended(
        code=found.exitCode or 0,
        reason=found.reason or "",
        message=found.message or "",
        at=_seconds(found.finishedAt),
        started=_seconds(found.startedAt),
    )


def _readiness(status: Any) -> dict[str, Any]:
    for one in (status and status.conditions) or ():
        if one.type == "Ready":
            return {"ready": one.status == "True", "ready_changed": _seconds(one.lastTransitionTime) or 0.0}
    return {}


def _unschedulable(status: Any) -> str:
    for one in (status and status.conditions) or ():
        if one.type == "PodScheduled" and one.status == "False":
            return one.message or one.reason or "?"
    return ""


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None

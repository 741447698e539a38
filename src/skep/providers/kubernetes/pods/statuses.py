"""The state of a container, from what is kept of it and what is seen of its pod.  Pure."""

from skep.model.host import ContainerState, ContainerStatus, Health
from skep.providers.kubernetes.pods.ledger import Entry
from skep.providers.kubernetes.pods.seen import Ended, SeenPod
from skep.providers.kubernetes.pods.words import why_not

_OOM = "OOMKilled"


def status(entry: Entry, pod: SeenPod | None, now: float) -> ContainerStatus:
    """`now`: seconds since 1970."""
    state = state_of(entry, pod)
    ended = _last_end(entry, pod)
    running = state is ContainerState.RUNNING
    return ContainerStatus(
        id=entry.id,
        replica=entry.replica,
        state=state,
        health=health(entry, pod, now) if pod and running else Health.NONE,
        exit_code=None if running or ended is None else ended.code,
        oom_killed=ended is not None and ended.reason == _OOM,
        error=_error(entry, pod),
        restarts=entry.restarts + (pod.restarts if pod else 0),
        started_at=(pod.since if pod and running else None) or (ended and ended.started) or entry.begun,
        finished_at=None if running or ended is None else ended.at,
    )


def state_of(entry: Entry, pod: SeenPod | None) -> ContainerState:
    if pod is not None and pod.running:
        return ContainerState.RUNNING
    if entry.exit is not None:
        return ContainerState.RESTARTING if entry.again and entry.wanted else ContainerState.EXITED
    if not entry.wanted:
        return ContainerState.EXITED
    ran = entry.begun is not None or (pod is not None and (pod.ended or pod.ended_before) is not None)
    return ContainerState.RESTARTING if ran else ContainerState.CREATED


def health(entry: Entry, pod: SeenPod, now: float) -> Health:
    """Of one that runs."""
    if entry.checked is None:
        return Health.NONE
    if pod.ready:
        return Health.HEALTHY
    since = pod.since or 0.0
    if pod.ready_changed > since + 1 or now >= since + entry.checked:
        return Health.UNHEALTHY
    return Health.STARTING


def unwell_at(entry: Entry, pod: SeenPod | None) -> float | None:
    """When its health changes if nothing is heard of it until then."""
    if pod is None or not pod.running or pod.ready or entry.checked is None:
        return None
    return (pod.since or 0.0) + entry.checked


def _last_end(entry: Entry, pod: SeenPod | None) -> Ended | None:
    if pod is not None and (found := pod.ended or pod.ended_before):
        return found
    if entry.exit is None or entry.exit.code is None:
        return None
    reason = _OOM if entry.exit.oom else ""
    return Ended(code=entry.exit.code, reason=reason, at=entry.exit.at)


def _error(entry: Entry, pod: SeenPod | None) -> str:
    if entry.exit is not None and entry.exit.error:
        return entry.exit.error
    if pod is None:
        return ""
    if pod.running:
        lost = pod.node_lost or (entry.checked is None and not pod.ready and _was_ready(pod))
        return f"Its node {pod.node} does not answer." if lost else ""
    return "" if pod.ended and not pod.reason and not pod.waiting else why_not(pod)


def _was_ready(pod: SeenPod) -> bool:
    return pod.ready_changed > (pod.since or 0.0) + 1

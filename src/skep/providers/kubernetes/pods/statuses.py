"""The state of a container, from what is kept of it and what is seen of its pod.  Pure."""

from skep.model.host import ContainerState, ContainerStatus, Health
from skep.providers.kubernetes.pods.ledger import Entry
from skep.providers.kubernetes.pods.seen import Ended, SeenPod
from skep.providers.kubernetes.pods.troubles import Trouble
from skep.providers.kubernetes.pods.words import why_not

_OOM = "OOMKilled"
_NONE = Trouble()
_HOPELESS = 5
"""Restarts of one pod after which nobody waits any longer: kubelets take about five minutes for them."""


def status(
    entry: Entry, pod: SeenPod | None, now: float, trouble: Trouble = _NONE, silence: str = ""
) -> ContainerStatus:
    """`now`: seconds since 1970; `trouble` and `silence`: what events say, and that its node says nothing."""
    state = state_of(entry, pod)
    ended = _last_end(entry, pod)
    running = state is ContainerState.RUNNING
    return ContainerStatus(
        id=entry.id,
        replica=entry.replica,
        state=state,
        health=health(entry, pod, now) if pod and running else Health.NONE,
        health_output=trouble.check if pod and running and not pod.ready else "",
        exit_code=None if running or ended is None else ended.code,
        oom_killed=ended is not None and ended.reason == _OOM,
        error=silence or _error(entry, pod, trouble),
        restarts=entry.restarts + (pod.restarts if pod else 0),
        started_at=(pod.since if pod and running else None) or (ended and ended.started) or entry.begun,
        finished_at=None if running or ended is None else ended.at,
        address=pod.address if pod and running else "",
        node=pod.node_address if pod and running else "",
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


def puzzling(entry: Entry, pod: SeenPod | None) -> bool:
    """Whether it waits, or is not well, and its pod does not say why."""
    if not entry.wanted or entry.exit is not None:
        return False
    if pod is None:
        return True
    if pod.running:
        return entry.checked is not None and not pod.ready
    return not (pod.waiting or pod.ended or pod.ended_before or pod.over)


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


def unready(status: ContainerStatus, *, checked: bool, reachable: bool, restarts: int) -> str | None:
    """ "" if it is ready, why it will not be, or None as long as that is open.

    `reachable`: whoever leads others to it can know its pod; `restarts`: of that pod.
    """
    if status.state is ContainerState.RUNNING:
        if status.health in (Health.NONE, Health.HEALTHY):
            return "" if reachable else None
        return "is unhealthy" if status.health is Health.UNHEALTHY else None
    if status.state is ContainerState.EXITED:
        return "" if status.exit_code == 0 and not checked else f"exited with {status.exit_code}"
    if restarts >= _HOPELESS:
        return f"ends again and again, the last time with exit code {status.exit_code}"
    return None


def _last_end(entry: Entry, pod: SeenPod | None) -> Ended | None:
    if pod is not None and (found := pod.ended or pod.ended_before):
        return found
    if entry.exit is None or entry.exit.code is None:
        return None
    reason = _OOM if entry.exit.oom else ""
    return Ended(code=entry.exit.code, reason=reason, at=entry.exit.at)


def _error(entry: Entry, pod: SeenPod | None, trouble: Trouble) -> str:
    if entry.exit is not None and entry.exit.error:
        return entry.exit.error
    if pod is None:
        return trouble.why if entry.wanted else ""
    if pod.running:
        lost = entry.checked is None and not pod.ready and _was_ready(pod)
        return f"Its node {pod.node} does not answer." if lost else ""
    own = "" if pod.ended and not pod.reason and not pod.waiting else why_not(pod)
    return " ".join(filter(None, (own, trouble.why)))


def _was_ready(pod: SeenPod) -> bool:
    return pod.ready_changed > (pod.since or 0.0) + 1

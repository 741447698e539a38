"""What Kubernetes says of a pod that does not run, in words for whoever can act.  Pure."""

import re
from datetime import UTC, datetime

from skep.providers.kubernetes.pods.seen import SeenPod

_AVAILABLE = re.compile(
    r"(?:\d+)/(?P<all>\d+) nodes are available: (?P<why>.*?)\.?(?: preemption:.*)?$", re.S
)
_PART = re.compile(r"(?P<count>\d+) (?P<why>.+)")
_PLACING = (
    (re.compile(r"Insufficient cpu"), "have too little CPU left"),
    (re.compile(r"Insufficient memory"), "have too little memory left"),
    (re.compile(r"Insufficient ephemeral-storage"), "have too little disk left for system disks"),
    (re.compile(r"Too many pods"), "run as many containers as they may"),
    (re.compile(r"node\(s\) had (?:untolerated )?taint \{(?P<what>[^}]*)\}.*"), "are kept free ({what})"),
    (re.compile(r"node\(s\) were unschedulable"), "take no new containers (cordoned)"),
    (re.compile(r"node\(s\) had volume node affinity conflict"), "cannot reach the disk"),
    (
        re.compile(r"node\(s\) didn't (?:match|satisfy) .*anti-affinity.*"),
        "run one of its replicas already",
    ),
    (
        re.compile(r"node\(s\) didn't match .*(?:affinity|selector).*"),
        "are not what its placement asks for",
    ),
    (re.compile(r"node\(s\) didn't have free ports.*"), "have the port taken"),
    (re.compile(r"pod has unbound immediate PersistentVolumeClaims"), "wait for its disk to be made"),
)
_NO_CLAIM = re.compile(
    r'persistentvolumeclaim "(?P<name>[^"]+)" (?P<how>not found|is being deleted|bound to non-existent .*)'
)
_FATAL = ("CreateContainerError", "RunContainerError", "InvalidImageName")
_PULLING = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable")


def placing(message: str) -> str:
    """Why the scheduler finds no node."""
    if lost := _NO_CLAIM.search(message):
        return (
            f"Its disk is gone: somebody took {lost['name']} from the cluster, and skep puts no empty one in "
            "the place of data. Bring the claim back under that name, or remove the app and apply it again."
        )
    found = _AVAILABLE.search(message)
    if found is None:
        return f"The cluster finds no place for it: {message}"
    parts = dict.fromkeys(_part(part) for part in re.split(r", (?=\d)", found["why"]))
    return f"None of {found['all']} nodes can take it: {', '.join(parts)}."


def why_not(pod: SeenPod) -> str:
    """Why the pod does not run; "" if there is nothing to say."""
    if pod.reason == "Evicted":
        return f"Its node put it out: {pod.message}"
    if pod.unschedulable and not pod.node:
        return placing(pod.unschedulable)
    if pod.waiting is None:
        return pod.message
    reason, message = pod.waiting
    if reason in _PULLING:
        return f"Its image cannot be pulled: {message or reason}"
    if reason == "CrashLoopBackOff":
        return "It ends again and again; the cluster waits before it starts it once more."
    return message or reason


def silence(node: str, since: float, *, disks: bool) -> str:
    """What it means that a node does not answer, for what is there; `since`: seconds since 1970."""
    said = f"Its node {node} has not answered since {datetime.fromtimestamp(since, UTC):%H:%M:%S} UTC. "
    if not disks:
        return said + "The cluster makes it again elsewhere some minutes after that."
    return said + (
        "It may still write to its disks there, so it is not made again before that node is back, or is off "
        f"for good and you say so: kubectl delete node {node}"
    )


def ending(name: str, pod: SeenPod) -> str:
    """What the end of its pod, which is ordered, waits for."""
    who = f"its node {pod.node}" if pod.node else "the cluster"
    return f"{name} is being ended: {who} has not said so yet."


def fatal(pod: SeenPod) -> str:
    """What is wrong with the specification itself, so that waiting does not help; "" if nothing is."""
    for ended in (pod.ended, pod.ended_before):
        if ended is not None and ended.never_ran:
            return _program(ended.message)
    if pod.waiting is not None and pod.waiting[0] in (*_FATAL, "Init:Error"):
        reason, message = pod.waiting
        return _program(message) if message else reason
    return ""


def _part(part: str) -> str:
    found = _PART.fullmatch(part.strip())
    if found is None:
        return part
    for pattern, said in _PLACING:
        if matched := pattern.fullmatch(found["why"]):
            return f"{found['count']} {said.format(**matched.groupdict())}"
    return f"{found['count']}: {found['why']}"


def _program(message: str) -> str:
    """Runtimes wrap it in the names of their own parts: the last of them knows."""
    found = re.search(r"exec: .*|chdir to cwd .*|unable to find user .*|user: unknown .*", message, re.S)
    return (found[0] if found else message).strip().removesuffix(": unknown")

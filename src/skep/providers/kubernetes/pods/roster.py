"""The containers of one carrier, as they are wanted and as they are seen.

Nothing here does anything: an order or a piece of news changes what is known, and who brought it does what
follows.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from skep.model.errors import Conflict, NotFound
from skep.model.host import ContainerStatus
from skep.model.ids import ContainerId, Seconds
from skep.model.restarts import History, decide
from skep.providers.kubernetes.pods import statuses, volumes, words
from skep.providers.kubernetes.pods.ledger import Entry, Exit, Ledger
from skep.providers.kubernetes.pods.manifests import Manifest
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.seen import Ended, SeenPod
from skep.providers.kubernetes.pods.troubles import Trouble

_KILLED = 137
_NO_TROUBLE = Trouble()
_DELETED = "Its pod was deleted in the cluster."


@dataclass(frozen=True)
class Heard:
    """What follows from a piece of news."""

    container: ContainerId | None = None
    """Whose it is."""
    work: bool = False
    """A round may have something to do."""
    again: Seconds | None = None
    """After so long it is to be started once more."""
    waited: bool = False
    """Somebody waits for a round: whoever started it, until the pod says whose it is."""


Silent = Callable[[str], float | None]
"""Since when a node does not answer (seconds since 1970); None: it does, or nobody knows of it."""


class Roster:
    """`ledger` says what is wanted, `pods` what is seen, `binding` which pod a container is, if any."""

    def __init__(
        self, ledger: Ledger, now: Callable[[], float] = time.time, silent: Silent = lambda _node: None
    ) -> None:
        self.ledger = ledger
        self.pods: dict[str, SeenPod] = {}
        self.binding: dict[ContainerId, str] = {}
        self._lost: set[str] = set()
        """Pods that are known to be gone before it was heard."""
        self._graces: dict[ContainerId, float] = {}
        self._troubles: dict[ContainerId, Trouble] = {}
        self._now = now
        self._silent = silent

    # -- what is asked ----------------------------------------------------------------------------

    @property
    def own_pods(self) -> bool:
        """Whether skep makes the pods itself; otherwise a controller makes another for one that is lost."""
        return self.ledger.kind is CarrierKind.POD

    @property
    def claims(self) -> frozenset[str]:
        """The disks that its pods mount."""
        return volumes.claims(self.ledger.template["spec"])

    def has(self, container: ContainerId) -> bool:
        return container in self.ledger.entries

    def entry(self, container: ContainerId) -> Entry:
        """Raises NotFound: it was removed."""
        if found := self.ledger.entries.get(container):
            return found
        raise NotFound(f"Container {container} was removed.")

    def pod(self, container: ContainerId) -> SeenPod | None:
        return self.pods.get(self.binding.get(container, ""))

    def bound_as(self, pod: str) -> ContainerId | None:
        return next((container for container, name in self.binding.items() if name == pod), None)

    def status(self, container: ContainerId) -> ContainerStatus:
        entry, pod = self.entry(container), self.pod(container)
        trouble = self._troubles.get(container, _NO_TROUBLE)
        return statuses.status(entry, pod, self._now(), trouble, self._silence(entry, pod))

    def puzzling(self) -> list[ContainerId]:
        """Those that wait, or are not well, and do not themselves say why."""
        return [one.id for one in self.ledger.wanted if statuses.puzzling(one, self.pod(one.id))]

    def well_for(self, container: ContainerId) -> Seconds | None:
        """How long its health stays as it is if nothing is heard of it; None: for ever."""
        at, now = statuses.unwell_at(self.entry(container), self.pod(container)), self._now()
        return None if at is None or at <= now else Seconds(at - now)

    def grace(self, pod: str) -> float:
        """Seconds that the pod has for its end."""
        seen = self.pods.get(pod)
        container = seen and (seen.container or self.bound_as(pod))
        return self._graces.get(container, 0.0) if container else 0.0

    def begun(self, container: ContainerId) -> bool:
        """Whether the start that was ordered last has led to anything."""
        pod = self.pod(container)
        if pod is None or (self.own_pods and pod.attempt < self.entry(container).attempt):
            return False
        over = pod.over or (pod.ended or pod.ended_before) is not None
        return over or (pod.running and self.reachable(container))

    def reachable(self, container: ContainerId) -> bool:
        """Whether whoever leads others to it can know its pod: nobody is led to one without ports."""
        pod = self.pod(container)
        return pod is not None and (pod.labelled or not self.entry(container).ports)

    def begun_anew(self, container: ContainerId, before: SeenPod | None) -> bool:
        """Whether it has begun in another pod."""
        pod = self.pod(container)
        another = pod is not None and (before is None or pod.uid != before.uid)
        return another and self.begun(container)

    def ended(self, container: ContainerId) -> bool:
        """Whether nothing of it runs any more that could be in the way of another."""
        own = (pod for pod in self.pods.values() if pod.container == container)
        pods = (*own, pod) if (pod := self.pod(container)) else own
        return all(one.over or one.ended is not None or self._given_up(one) for one in pods)

    def silence(self, pod: str) -> str:
        """What it means that the pod's node does not answer; "" if it does."""
        seen = self.pods.get(pod)
        since = self._silent(seen.node) if seen else None
        return words.silence(seen.node, since, disks=bool(self.claims)) if seen and since is not None else ""

    def _given_up(self, pod: SeenPod) -> bool:
        """Its node is silent, and whatever it may still do there harms nobody."""
        return not self.claims and self._silent(pod.node) is not None

    def _silence(self, entry: Entry, pod: SeenPod | None) -> str:
        """Of its pod's node, or of that of the pod before, which is in the way."""
        if pod is None and entry.wanted and self.ledger.kind is CarrierKind.STATEFUL_SET:
            pod = next((one for one in self.pods.values() if one.deleting), None)
        return self.silence(pod.name) if pod else ""

    # -- orders -----------------------------------------------------------------------------------

    def start(self, entry: Entry, template: Manifest, shape: str) -> None:
        """Raises Conflict: its place is taken."""
        if self.ledger.kind is CarrierKind.STATEFUL_SET:
            self._must_be_free(entry)
        if (before := self.ledger.entries.get(entry.id)) is not None:
            entry = _once_more(entry, before)
        if not self.own_pods:
            self.binding.pop(entry.id, None)  # a pod that is about to go
        moved = volumes.claims(template["spec"]) != self.claims  # a disk went back to a snapshot
        if shape != self.ledger.shape or not self.ledger.entries or moved:
            # What runs keeps its template: another version of skep might write the same one differently.
            self.ledger = replace(self.ledger, template=template, shape=shape)
        self.ledger = self.ledger.with_entry(entry)

    def stop(self, container: ContainerId, seconds: float | None) -> float:
        """Answers the seconds that it has for its end: its own, if none are said."""
        entry = self.entry(container)
        grace = entry.grace if seconds is None else seconds
        self._graces[container] = grace
        nothing_ran = self.pod(container) is None and entry.exit is None
        ended = Exit(code=_KILLED, at=self._now()) if nothing_ran else entry.exit
        self._keep(replace(entry, wanted=False, again=False, exit=ended))
        return grace

    def restart(self, container: ContainerId) -> None:
        entry = self.entry(container)
        fresh = replace(entry, wanted=True, exit=None, again=False, history=History())
        if self.own_pods or self.pod(container) is None:
            fresh = replace(fresh, attempt=entry.attempt + 1, restarts=entry.restarts + 1)
        self._graces[container] = entry.grace
        self._keep(fresh)

    def remove(self, container: ContainerId) -> None:
        self._graces[container] = 0
        self._troubles.pop(container, None)
        self.ledger = self.ledger.without(container)

    def bind(self, pod: str, container: ContainerId) -> None:
        """The pod becomes the container, which has none."""
        self.binding[container] = pod
        self.pods[pod] = dataclasses.replace(self.pods[pod], container=container)

    def again(self, container: ContainerId) -> bool:
        """Its delay is over.  False: it is not to be started any more."""
        entry = self.ledger.entries.get(container)
        if entry is None or not entry.wanted or not entry.again:
            return False
        attempts = {"attempt": entry.attempt + 1, "restarts": entry.restarts + 1}
        self._keep(replace(entry, exit=None, again=False, **attempts))
        return True

    # -- what is heard ----------------------------------------------------------------------------

    def heard(self, pod: SeenPod, *, gone: bool) -> Heard:
        """A pod of the carrier is as told, or is no longer there."""
        if pod.name in self._lost:
            if gone:
                self._lost.remove(pod.name)
            return Heard()
        before = self.pods.pop(pod.name, None)
        bound = self.bound_as(pod.name)
        if pod.container is None and bound is not None:
            pod = dataclasses.replace(pod, container=bound)
        if taken := bound is not None and bound != pod.container:
            del self.binding[bound]  # it was told to be another, by another process
        if not gone:
            self.pods[pod.name] = pod
        container = pod.container
        if container is None or not self.has(container):
            return Heard(work=taken or container is None or not gone)
        exited = self.entry(container).exit
        followed = self._follow(container, pod, before or pod, gone=gone)
        again = self._judge(container, pod, gone=gone)
        entry = self.entry(container)
        work = followed or gone or pod.over or not entry.wanted or entry.exit != exited
        return Heard(container, work or taken, again, waited=pod.running and not pod.labelled)

    def explain(self, container: ContainerId, trouble: Trouble) -> None:
        """What else was found out of one that waits, or is not well."""
        self._troubles[container] = trouble

    def missing(self, container: ContainerId) -> None:
        """An earlier process saw it run; nobody saw its end."""
        entry = self.entry(container)
        alone = self.own_pods and entry.begun is not None
        if entry.wanted and entry.exit is None and alone and self.pod(container) is None:
            self._keep(replace(entry, exit=Exit(error=_DELETED, at=self._now())))

    def gone(self, pod: str) -> ContainerId | None:
        """The pod turned out not to be there, before that was heard.  Answers whose it was."""
        if (seen := self.pods.get(pod)) is None:
            return None
        news = self.heard(seen, gone=True)
        self._lost.add(pod)
        return news.container

    def _follow(self, container: ContainerId, pod: SeenPod, before: SeenPod, *, gone: bool) -> bool:
        """Which pod the container is now.  Answers whether that makes work."""
        lost = gone or pod.deleting or pod.over
        if lost and not self.own_pods and self.entry(container).wanted:
            return self._lose(container, before)
        if not gone:
            return self._hold(container, pod)
        if self.binding.get(container) == pod.name:
            self._ended_unseen(container, before)
        return False

    def _hold(self, container: ContainerId, pod: SeenPod) -> bool:
        """The container is this pod, unless there is a later one, or it no longer counts."""
        entry = self.entry(container)
        if self.ledger.kind is CarrierKind.DEPLOYMENT and entry.wanted and not pod.member:
            return False
        other = self.pods.get(self.binding.get(container, ""))
        if other is None or other.name == pod.name or other.attempt <= pod.attempt:
            self.binding[container] = pod.name
        if pod.running and (pod.ready or entry.checked is None):
            self._troubles.pop(container, None)
        if not pod.running or entry.begun is not None:
            return False
        self._keep(replace(entry, begun=pod.since))
        return self.own_pods

    def _lose(self, container: ContainerId, pod: SeenPod) -> bool:
        """A controller replaces the pod: the container goes on in the next one."""
        if self.binding.get(container) != pod.name:
            return False
        del self.binding[container]
        self._troubles.pop(container, None)
        entry = self.entry(container)
        self._keep(replace(entry, restarts=entry.restarts + pod.restarts + 1))
        return True

    def _ended_unseen(self, container: ContainerId, pod: SeenPod) -> None:
        del self.binding[container]
        entry = self.entry(container)
        if entry.exit is not None or pod.attempt < entry.attempt:
            return
        if not entry.wanted:
            self._keep(replace(entry, exit=self._exit(pod.ended or Ended(code=_KILLED))))
        else:
            self._keep(replace(entry, exit=Exit(error=_DELETED, at=self._now())))

    def _judge(self, container: ContainerId, pod: SeenPod, *, gone: bool) -> Seconds | None:
        """What follows the end of a pod that nobody else starts again."""
        entry = self.entry(container)
        if entry.exit is not None or gone or not (pod.over or pod.ended):
            return None
        if not entry.wanted:
            self._keep(replace(entry, exit=self._exit(pod.ended or Ended(code=_KILLED))))
        elif self.own_pods and pod.attempt >= entry.attempt:
            return self._judge_end(entry, pod)
        return None

    def _judge_end(self, entry: Entry, pod: SeenPod) -> Seconds | None:
        ended = pod.ended or Ended(code=_KILLED, message=pod.message, at=self._now())
        ran_for = Seconds((ended.at or 0.0) - (ended.started or ended.at or 0.0))
        again = decide(entry.restart, ended.code, ran_for, entry.history)
        error = pod.message if pod.reason else ""
        changed = replace(entry, exit=self._exit(ended, error), again=again is not None)
        self._keep(changed if again is None else replace(changed, history=again.history))
        return None if again is None else again.after

    # -- small things -----------------------------------------------------------------------------

    def _must_be_free(self, entry: Entry) -> None:
        for other in self.ledger.wanted:
            if other.id != entry.id:
                raise Conflict(f"{entry.name} runs already, as another container: stop that first.")

    def _keep(self, entry: Entry) -> None:
        self.ledger = self.ledger.with_entry(entry)

    def _exit(self, ended: Ended, error: str = "") -> Exit:
        at = ended.at or self._now()
        return Exit(code=ended.code, oom=ended.reason == "OOMKilled", error=error, at=at)


def _once_more(entry: Entry, before: Entry) -> Entry:
    ended = before.exit is not None or before.begun is not None
    return replace(
        entry,
        attempt=before.attempt + (1 if ended else 0),
        restarts=before.restarts,
        begun=before.begun,
    )

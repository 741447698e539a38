"""What is to be done for a carrier, from what is wanted and what is seen.  Pure; carried out by `Carrier`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from skep.model.ids import ContainerId, ReplicaId
from skep.providers.kubernetes.pods.ledger import Entry, Ledger
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.seen import SeenPod


@dataclass(frozen=True)
class Work:
    """In this order: members leave before there are to be fewer, so that exactly they go."""

    leave: dict[str, ContainerId] = field(default_factory=dict)
    """Pods that no longer count for their Deployment, with whose they were."""
    workload: bool = False
    """Whether there is a Deployment or StatefulSet to apply."""
    all_go: list[str] = field(default_factory=list)
    """Members of a Deployment that is to have none, which ends them itself: nobody is to be chosen, and
    another would begin beside each that leaves, or ends before."""
    end: list[str] = field(default_factory=list)
    make: list[Entry] = field(default_factory=list)
    """Containers that need a pod, of those whose pods skep makes itself."""
    bind: dict[str, Entry] = field(default_factory=dict)
    """Pods that become these containers."""
    label: dict[str, Entry] = field(default_factory=dict)
    """Pods that are to say which containers they are."""


def work(
    ledger: Ledger,
    pods: Iterable[SeenPod],
    binding: Mapping[ContainerId, str],
    named: Collection[ReplicaId] = (),
) -> Work:
    """`binding`: the pod of each container that has one; `named`: whose are to be known before they run."""
    found = {pod.name: pod for pod in pods}
    match ledger.kind:
        case CarrierKind.DEPLOYMENT:
            return _deployment(ledger, found, binding, named)
        case CarrierKind.STATEFUL_SET:
            return Work(workload=True, end=[name for name, pod in found.items() if _unwanted(ledger, pod)])
        case CarrierKind.POD:
            return _pods(ledger, found)


def _deployment(
    ledger: Ledger,
    pods: Mapping[str, SeenPod],
    binding: Mapping[ContainerId, str],
    named: Collection[ReplicaId],
) -> Work:
    taken = set(binding.values())
    unwanted = {
        name: pod.container
        for name, pod in pods.items()
        if pod.container and (_unwanted(ledger, pod) or _second(pod, binding))
    }
    put_out = [
        name
        for name, pod in pods.items()
        if (pod.over or (pod.container and not pod.member)) and not pod.deleting and name not in unwanted
    ]
    free = sorted(
        (
            pod
            for name, pod in pods.items()
            if not pod.labelled and name not in taken and name not in unwanted and _alive(pod)
        ),
        key=lambda pod: (not pod.running, not pod.node, pod.name),
    )
    waiting = [entry for entry in ledger.wanted if entry.id not in binding]
    bind = {pod.name: entry for pod, entry in zip(free, waiting, strict=False)}
    known = {binding[entry.id]: entry for entry in ledger.wanted if entry.id in binding} | bind
    members = {name: whose for name, whose in unwanted.items() if pods[name].member}
    return Work(
        leave=members if ledger.wanted else {},
        all_go=[] if ledger.wanted else list(members),
        workload=True,
        end=[*unwanted, *put_out],
        bind=bind,
        label={
            name: entry
            for name, entry in known.items()
            if name in pods and not pods[name].labelled and (pods[name].running or entry.replica in named)
        },
    )


def _pods(ledger: Ledger, pods: Mapping[str, SeenPod]) -> Work:
    end, make = [], []
    for name, pod in pods.items():
        entry = ledger.entries.get(pod.container) if pod.container else None
        kept = entry is not None and (pod.over or entry.wanted) and pod.attempt >= entry.attempt
        if not kept and not pod.deleting:
            end.append(name)
    for entry in ledger.wanted:
        own = [pod for pod in pods.values() if pod.container == entry.id]
        current = any(pod.attempt >= entry.attempt for pod in own)
        if entry.exit is None and not current and all(pod.over for pod in own):
            make.append(entry)
    return Work(end=end, make=make)


def _unwanted(ledger: Ledger, pod: SeenPod) -> bool:
    if pod.container is None or pod.deleting:
        return False
    entry = ledger.entries.get(pod.container)
    return entry is None or not entry.wanted


def _second(pod: SeenPod, binding: Mapping[ContainerId, str]) -> bool:
    """It says that it is a container which is another pod: two processes did not know of each other."""
    if pod.container is None or not pod.labelled or not _alive(pod):
        return False
    return binding.get(pod.container, pod.name) != pod.name


def _alive(pod: SeenPod) -> bool:
    return pod.member and not pod.deleting and not pod.over

"""A running release in words and numbers.  Pure: records and rows in, what people are shown out."""

from collections.abc import Iterable, Mapping, Sequence

from skep.control.naming import fingerprint
from skep.control.plans.victims import serves
from skep.flow import RunRecord, StepRecord
from skep.flow.runs import RunState, StepState
from skep.model.ids import ContainerId
from skep.model.names import ServiceName
from skep.model.views.rollouts import RolloutService
from skep.model.views.runs import WaitView
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow

MOST = 10
"""Things waited for that are named."""
_ENDED = {
    RunState.SUCCEEDED: "in force",
    RunState.FAILED: "failed, and was taken back",
    RunState.CANCELLED: "aborted, and was taken back",
}
_HELD = {
    RunState.PENDING: "waits for another run of the app",
    RunState.PAUSED: "paused",
    RunState.UNDOING: "is being taken back",
    RunState.NEEDS_OPERATOR: "needs an operator",
}
_DOING = (
    ("image.", "fetching images"),
    ("disk.copy", "copying what disks hold"),
    ("disk.compare", "comparing what was copied"),
    ("disk.catch_up", "copying what has changed on disks"),
    ("disk.", "making disks"),
    ("engine.ready", "waiting for {} to be ready"),
    ("engine.completed", "waiting for {} to complete"),
    ("rollout.proven", "watching whether {} stays well"),
    ("rollout.still_well", "watching whether {} stays well"),
    ("rollout.drain", "draining {}"),
    ("rollout.", "judging {}"),
    ("traffic.", "switching connections"),
    ("network.", "connecting {}"),
    ("engine.halt", "stopping {}"),
    ("engine.", "starting {}"),
    ("replica.place", "starting {}"),
    ("release.claim", "claiming addresses and ports"),
    ("release.prepare", "claiming addresses and ports"),
    ("release.", "finishing"),
)
_ENDS = ("-ready", "-completed", "-proven", "-drain", "-old", "-approval")


def phase(record: RunRecord, steps: Sequence[StepRecord]) -> str:
    """What is done now, or how it ended."""
    if record.state in _ENDED:
        return _ENDED[record.state]
    if record.state in _HELD:
        return _HELD[record.state]
    if any(one.state is StepState.WAITING and one.name.endswith("-approval") for one in steps):
        return "asks whether to go on in spite of failures"
    now = [one for one in steps if one.state in (StepState.RUNNING, StepState.RETRYING, StepState.WAITING)]
    said: dict[str, list[str]] = {}
    for one in now:
        said.setdefault(_words(one.use), []).append(_subject(one.name))
    return "; ".join(_told(words, subjects) for words, subjects in said.items()) or "going on"


def services(
    members: Iterable[ReplicaRow],
    containers: Mapping[ContainerId, ContainerRow],
    release: ReleaseRow | None,
) -> tuple[RolloutService, ...]:
    """What there is of this release and of others, service by service.

    What the release left as it was is of it, whichever release it was made for.
    """
    wanted: dict[str, str] = {}
    if release is not None:
        for name, info in release.images.items():
            wanted[name] = fingerprint(release.spec, ServiceName(name), info.digest)
    found: dict[str, list[tuple[ReplicaRow, bool]]] = {}
    for row in members:
        made = containers.get(row.container_id)
        new = made is not None and made.fingerprint == wanted.get(row.service)
        found.setdefault(row.service, []).append((row, new))
    return tuple(
        RolloutService(
            service=name,
            old=sum(not new for _, new in rows),
            new=sum(new for _, new in rows),
            ready=sum(new and _is_ready(row) for row, new in rows),
            old_weight=sum(row.weight for row, new in rows if not new),
            new_weight=sum(row.weight for row, new in rows if new),
        )
        for name, rows in sorted(found.items())
    )


def waits(found: Iterable[WaitView]) -> list[str]:
    """What keeps it waiting, save for steps that just wait for others."""
    said = [
        f"{one.step}: {reason.message}" if one.step else reason.message
        for one in found
        for reason in one.reasons
        if reason.kind not in ("dependency", "running")
    ]
    return said[:MOST]


def _is_ready(row: ReplicaRow) -> bool:
    return row.status is not None and row.status.id == row.container_id and serves(row)


def _words(use: str) -> str:
    return next((words for prefix, words in _DOING if use.startswith(prefix)), "working on {}")


def _subject(name: str) -> str:
    first = name.split(".", 1)[0]
    return next((first.removesuffix(end) for end in _ENDS if first.endswith(end)), first)


def _told(words: str, subjects: Sequence[str]) -> str:
    names = list(dict.fromkeys(subjects))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return words.format(shown)

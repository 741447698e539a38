"""What is known of a run, as its events tell it."""

from datetime import datetime

from skep.model.views.runs import RunDetail, RunEventView

_STATES = {"progress": "started", "undo-retrying": "undoing", "undo-failed": "failed", "in-doubt": "failed"}
"""What an event says of its step, where it is not the name of a state."""
_AT_WORK = ("failed", "undoing", "retrying", "started")
_DONE = ("succeeded", "undone", "skipped", "kept", "resolved")


class Group:
    """Steps that belong together, such as all of `web-0`: how far they are and what the latest one does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: dict[str, str] = {}
        self.message = ""
        self.began = self.ended = ""

    @property
    def done(self) -> int:
        return sum(state in _DONE for state in self.states.values())

    @property
    def state(self) -> str:
        states = set(self.states.values())
        for first in _AT_WORK:
            if first in states:
                return first
        if states == {"pending"}:
            return "pending"
        if "undone" in states:
            return "undone"
        return "succeeded" if self.done == len(self.states) else "started"


class Picture:
    """What is known of a run, from its steps and its events.  The items of a fan-out are one group."""

    def __init__(self, detail: RunDetail) -> None:
        self.run = detail.run
        self.groups: dict[str, Group] = {}
        for step in detail.steps:
            self._group(step.name).states[step.name] = "pending"  # the history that follows says the rest

    def take(self, event: RunEventView) -> None:
        if not event.step:
            return
        group = self._group(event.step)
        group.states[event.step] = _STATES.get(event.kind, event.kind)
        group.began = group.began or event.at
        group.ended = event.at
        group.message = event.message or ("" if event.kind == "succeeded" else group.message)

    def _group(self, step: str) -> Group:
        fanout, item, _ = step.partition("[")
        name = fanout if item else step.rpartition(".")[0] or step
        return self.groups.setdefault(name, Group(name))


def seconds(began: str, ended: str) -> float | None:
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    except ValueError:
        return None

"""Which runs are meant: by what people say of them, and by what is to be done to them.  Pure."""

from datetime import datetime
from typing import Literal

import msgspec

from skep.flow import RunFilter, RunState
from skep.model.errors import InvalidInput

Action = Literal["pause", "resume", "cancel", "retry", "rerun"]


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions that all hold for each run; `tenants`: of all tenants, not of the caller's alone."""

    flow: str | None = None
    states: tuple[str, ...] = ()
    app: str | None = None
    active: bool = False
    tenants: bool = False
    schedule: str | None = None
    failed_step: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def states_of(selection: Selection) -> tuple[RunState, ...]:
    """Raises InvalidInput: no such state."""
    known = {state.value: state for state in RunState}
    wrong = [state for state in selection.states if state not in known]
    if wrong:
        raise InvalidInput(f"There is no state {wrong[0]!r} of runs; there are {', '.join(known)}.")
    return tuple(known[state] for state in selection.states)


def where(selection: Selection, tenant: str | None, labels: dict[str, str]) -> RunFilter:
    """Raises InvalidInput: no such state, or a time without a zone."""
    for moment in (selection.created_after, selection.created_before):
        if moment is not None and moment.tzinfo is None:
            raise InvalidInput("A time needs its zone: write it like 2026-01-02T03:04:05Z.")
    schedule = {} if selection.schedule is None else {"schedule": selection.schedule}
    return RunFilter(
        tenant=tenant,
        flow=selection.flow,
        labels=labels | schedule,
        states=states_of(selection),
        active=True if selection.active else None,
        failed_step=selection.failed_step,
        created_after=selection.created_after,
        created_before=selection.created_before,
    )


def fitting(found: RunFilter, action: Action) -> RunFilter:
    """Where nobody said in which state the runs are to be: those with which it can be done at all."""
    if found.states or found.active is not None:
        return found
    match action:
        case "pause" | "cancel":
            return msgspec.structs.replace(found, active=True)
        case "resume":
            return msgspec.structs.replace(found, states=(RunState.PAUSED,))
        case "retry":
            return msgspec.structs.replace(found, states=(RunState.FAILED, RunState.CANCELLED))
        case "rerun":
            return msgspec.structs.replace(found, active=False)

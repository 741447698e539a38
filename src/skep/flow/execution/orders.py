"""What people ask of a run that goes on here: each order is carried out at once and becomes durable with the
next commit."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from skep.flow.errors import WrongState
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.operator import resolve
from skep.flow.execution.why import Why
from skep.flow.execution.worker import Worker
from skep.flow.runs import RunState


class Orders:
    """`withdraw` takes back the claims of a run that has not begun."""

    def __init__(self, worker: Worker, why: Why, withdraw: Callable[[ActiveRun], None]) -> None:
        self._worker = worker
        self._why = why
        self._withdraw = withdraw
        self._kinds: Mapping[str, Callable[[ActiveRun, Mapping[str, Any], str], object]] = {
            "pause": self._pause,
            "resume": self._resume,
            "cancel": self._cancel,
            "resolve": self._resolve,
            "why": self._explain,
        }

    def carry_out(self, run: ActiveRun, kind: str, body: Mapping[str, Any], by: str) -> object:
        """Answers what JSON can say.

        Raises:
            WrongState: the run is not in a state for this.
        """
        if kind != "why":
            _require_steerable(run)
        return self._kinds[kind](run, body, by)

    def _pause(self, run: ActiveRun, _body: Mapping[str, Any], by: str) -> None:
        if not run.row.paused:
            self._worker.pause(run, by)

    def _resume(self, run: ActiveRun, _body: Mapping[str, Any], by: str) -> None:
        if run.row.paused:
            self._worker.resume(run, by)

    def _cancel(self, run: ActiveRun, _body: Mapping[str, Any], by: str) -> None:
        self._worker.stop(run, RunState.CANCELLED, f"cancelled by {by}" if by else "cancelled")
        if not run.begun and run.execution.untouched:  # else it is undone once it has its locks
            self._withdraw(run)
            run.begun = True
        if run.row.paused:
            self._worker.resume(run, by)
        self._worker.calls.cancel(run)
        self._worker.settle(run)
        self._worker.ledger.run(run)

    def _resolve(self, run: ActiveRun, body: Mapping[str, Any], by: str) -> None:
        resolve(self._worker, run, body["step"], body["choice"], by)

    def _explain(self, run: ActiveRun, body: Mapping[str, Any], _by: str) -> object:
        return msgspec.to_builtins(self._why.explain(run, body.get("step", "")))


def _require_steerable(run: ActiveRun) -> None:
    if run.row.state.ended:
        raise WrongState(f"run {run.id} has ended: {run.row.state}")
    if run.isolated:
        raise WrongState(f"run {run.id} needs its operator: {run.row.error}")
    if run.abandoned:
        raise WrongState(f"run {run.id} changes its definition just now; ask again")

"""The runs that this process has: from when they are taken up until their end is durable."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from skep.flow.admission.gate import RunGate
from skep.flow.execution.active import ActiveRun
from skep.flow.execution.loading import Loader, isolated
from skep.flow.execution.quarantine import GUILTY, SUSPECT, Quarantine
from skep.flow.execution.worker import Worker
from skep.flow.runs import Claim, Reason, RunState, StoredRun
from skep.flow.steps import RunId

log = structlog.get_logger(__name__)


class Gate(Protocol):
    """Who holds which keys; a run gets all of its own or none."""

    def request(
        self, run: RunId, claims: Sequence[Claim], priority: int, granted: Callable[[], None]
    ) -> None:
        """Call `granted` once the run has all of them."""

    def release(self, run: RunId) -> None:
        """Give them back, or stop waiting for them."""

    def why(self, run: RunId) -> tuple[Reason, ...]: ...


class Roster:
    """`name_suspect` records durably which run goes alone.  `gate`: where several workers share a database
    another one takes the place of that in memory."""

    def __init__(
        self,
        loader: Loader,
        worker: Worker,
        *,
        name_suspect: Callable[[RunId | None], Awaitable[None]],
    ) -> None:
        self.runs: dict[RunId, ActiveRun] = {}
        self._loader = loader
        self.gate: Gate = RunGate()
        self._worker = worker
        self._quarantine = Quarantine(name_suspect, worker.begin)

    def take(self, run: ActiveRun) -> None:
        """It goes on here as soon as it has its locks."""
        self.runs[run.id] = run
        if run.sequence == 0:
            self._worker.ledger.event(run, "run-created")
        if run.isolated:
            self._worker.ledger.event(run, "run-needs-operator", message=run.row.error)
            self._worker.ledger.run(run)
        self.gate.request(run.id, run.row.locks, run.row.priority, lambda: self._granted(run.id))

    def adopt(self, stored: Sequence[StoredRun]) -> None:
        """Take up what another worker, or an earlier life of this one, left behind; who held locks first."""
        for item in sorted(stored, key=lambda item: item.row.state is RunState.PENDING):
            if item.row.id in self.runs:
                continue
            item.row.crashes += item.crashed
            if item.row.crashes >= GUILTY and (item.suspect or item.row.state is RunState.NEEDS_OPERATOR):
                run = isolated(item, f"its worker died {item.row.crashes} times while it carried it out")
            else:
                run = self._loader.load(item)
            self.take(run)
            if run.row.crashes:
                self._worker.ledger.run(run)

    def reload(self, run: ActiveRun, stored: StoredRun) -> None:
        """Try again to load one that could not be loaded, or that was isolated."""
        stored.row.crashes = 0
        loaded = self._loader.load(stored)
        loaded.followers, loaded.ended, loaded.sequence = run.followers, run.ended, run.sequence
        loaded.granted = run.granted
        came = [signal for signal in run.signals if signal.id not in loaded.heard]  # since they were read
        loaded.signals += came
        loaded.heard.update(signal.id for signal in came)
        self.runs[run.id] = loaded
        if loaded.bound is not None and loaded.granted:
            loaded.row.error = ""
            if loaded.row.state is RunState.NEEDS_OPERATOR:
                loaded.row.state = RunState.RUNNING
            self._worker.begin(loaded)

    def isolate(self, run: RunId, reason: str) -> None:
        """It goes no further and waits for its operator; what is under way is forgotten."""
        active = self.runs.get(run)
        if active is None or active.isolated:
            return
        active.abandoned = True
        active.stop_timers()
        stored = StoredRun(active.row, b"", sequence=active.sequence)
        isolate = isolated(stored, reason)
        isolate.followers, isolate.ended, isolate.granted = active.followers, active.ended, active.granted
        self.runs[run] = isolate
        self._worker.ledger.event(isolate, "run-needs-operator", message=reason)
        self._worker.ledger.run(isolate)

    def why(self, run: ActiveRun) -> Reason | None:
        return self._quarantine.why(run)

    def locks(self, run: ActiveRun) -> tuple[Reason, ...]:
        return self.gate.why(run.id)

    def withdraw(self, run: ActiveRun) -> None:
        self.gate.release(run.id)

    def gone(self, run: ActiveRun) -> None:
        """Its end is durable: others may have the locks, and whoever waits is told."""
        self.runs.pop(run.id, None)
        self.gate.release(run.id)
        run.ended.set()
        run.wake()

    def forget(self) -> list[ActiveRun]:
        """Drop everything, as if it had never been here."""
        runs = list(self.runs.values())
        self.runs.clear()
        for run in runs:
            run.abandoned = True
            run.stop_timers()
        return runs

    async def close(self) -> None:
        await self._quarantine.close()

    def _granted(self, identifier: RunId) -> None:
        run = self.runs.get(identifier)
        if run is None:
            return
        run.granted = True
        if run.bound is not None and not self._worker.calls.closing:
            if run.row.crashes >= SUSPECT:
                log.warning("flow.suspect", run=run.id, crashes=run.row.crashes)
            self._quarantine.admit(run)


def tell(run: ActiveRun) -> None:
    """Whoever waits for it here must look elsewhere."""
    run.ended.set()
    run.wake()

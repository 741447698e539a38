"""Runs: how a change goes on, why it waits, and what to do when it needs somebody.

Members steer what is under way in their tenant.  To decide for a run that is stuck, or to do an old one
again, is the operators' business: the cloud's runs carry plans, and whether a plan of yesterday is still
right takes somebody who sees all of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

from skep.control.callers import Caller
from skep.control.clock import Now
from skep.control.plans import facts
from skep.control.runs import run_views
from skep.control.runs.flow_faults import translated
from skep.control.runs.run_finding import RunFinder
from skep.control.runs.run_selection import Action, Selection, fitting, where
from skep.flow import Database, FlowEngine, RunFilter, RunId, RunRecord
from skep.flow.definition import picture
from skep.flow.monitoring.critical_path import critical_path
from skep.flow.storage import archive
from skep.model.errors import Conflict, InvalidInput, SkepError
from skep.model.ids import TenantId
from skep.model.views.base import Accepted
from skep.model.views.flows import DrawnView
from skep.model.views.runs import (
    ActedView,
    CriticalPathView,
    PathStep,
    RunDetail,
    RunEventView,
    RunGraph,
    RunView,
    WaitView,
)

TOGETHER = 50
"""Runs of many that are acted on at once, so that they share commits."""
MOST = 1000
"""Runs of one answer, or of one bulk action."""


class Runs:
    """`now`: seconds since 1970."""

    def __init__(self, database: Database, flows: FlowEngine, now: Now) -> None:
        self._database = database
        self._flows = flows
        self._now = now
        self._finder = RunFinder(database, flows)
        self._steer: dict[Action, Callable[[RunId, str], Awaitable[object]]] = {
            "pause": flows.pause,
            "resume": flows.resume,
            "cancel": flows.cancel,
            "retry": flows.retry,
            "rerun": flows.rerun,
        }

    # looking

    async def show(self, caller: Caller, run: str, *, fold: bool = False) -> RunDetail:
        """A run with its steps; with `fold` the items of fan-outs are counted instead of listed."""
        record, archived = await self._finder.find(caller, run)
        found = archived.steps if archived else await self._flows.steps(record.id)
        shown = run_views.folded if fold else run_views.steps
        view = await self._finder.view(record, archived=archived is not None)
        return RunDetail(run=view, steps=await asyncio.to_thread(shown, record, found, self._now()))

    async def glance(self, caller: Caller, run: str) -> RunView:
        """The run without its steps, of which there may be very many."""
        record, archived = await self._finder.find(caller, run)
        return await self._finder.view(record, archived=archived is not None)

    async def follow(self, caller: Caller, run: str) -> AsyncIterator[RunEventView]:
        """The whole history, then what happens, until the run has ended."""
        record, archived = await self._finder.find(caller, run)
        for event in archived.events if archived else ():
            yield run_views.event(event)
        if archived is None:
            async for event in self._flows.follow(record.id):
                yield run_views.event(event)

    async def why(self, caller: Caller, run: str) -> list[WaitView]:
        """What the run, and each step that has not ended, waits for; nothing if it has ended."""
        record, archived = await self._finder.find(caller, run)
        with translated():
            found = () if archived else await self._flows.why(record.id)
        names = {item: await self._finder.name(caller, item) for item in run_views.ids_in(found)}
        return run_views.waits(found, names.__getitem__)

    async def graph(self, caller: Caller, run: str) -> RunGraph:
        """The steps of its flow with their states and times."""
        record, plan = await self._finder.planned(caller, run)
        found = await self._flows.steps(record.id)
        nodes = await asyncio.to_thread(run_views.nodes, record, plan.steps, found, self._now())
        return RunGraph(run=await self._finder.view(record), nodes=nodes)

    async def draw(self, caller: Caller, run: str, format: Literal["svg", "mermaid"]) -> DrawnView:  # noqa: A002
        """The picture of it, coloured by what has become of the steps."""
        record, plan = await self._finder.planned(caller, run)
        found = await self._flows.steps(record.id)
        states = {one.name: one.state.value for one in found}
        took = await asyncio.to_thread(run_views.took, record, found, self._now())
        render = picture.svg if format == "svg" else picture.mermaid
        try:
            content = await asyncio.to_thread(render, plan, states=states, took=took)
        except ValueError as error:
            raise Conflict(f"{error}; ask for JSON instead.") from error
        return DrawnView(flow=record.flow, format=format, content=content)

    async def critical(self, caller: Caller, run: str) -> CriticalPathView:
        """Which steps decided how long it took.  Raises Conflict: it has not ended, or never began."""
        record, archived = await self._finder.find(caller, run)
        found = archived.steps if archived else await self._flows.steps(record.id)
        if record.started is None or record.finished is None:
            raise Conflict(f"Run {run} has not ended: it is {record.state.value}; see 'skep run why {run}'.")
        path = await asyncio.to_thread(critical_path, found, record.started, record.finished)
        return CriticalPathView(
            run=await self._finder.view(record, archived=archived is not None),
            total=path.total,
            behind=path.behind,
            steps=tuple(
                PathStep(step=one.step, blocked=one.blocked, queued=one.queued, running=one.running)
                for one in path.steps
            ),
            slack=dict(path.slack),
        )

    # steering

    async def pause(self, caller: Caller, run: str) -> None:
        """Start no further step.  Raises Conflict: it has ended."""
        await self._act(caller, "pause", run)

    async def resume(self, caller: Caller, run: str) -> None:
        await self._act(caller, "resume", run)

    async def cancel(self, caller: Caller, run: str) -> None:
        """Stop the run and undo what it did.  Raises Conflict: it has ended."""
        await self._act(caller, "cancel", run)

    async def retry(self, caller: Caller, run: str) -> None:
        """Go on with a run that failed.  Raises Conflict: it has not."""
        await self._act(caller, "retry", run)

    async def rerun(self, caller: Caller, run: str) -> Accepted:
        """Begin a new run with the same input."""
        return Accepted(run=await self._act(caller, "rerun", run))

    async def act(
        self,
        caller: Caller,
        action: Action,
        *,
        runs: Sequence[str] = (),
        selection: Selection | None = None,
        dry: bool = False,
    ) -> list[ActedView]:
        """Do it to these runs, or to those of a selection; what cannot be done is said, and passed over.

        `dry`: nothing is done; answers the runs that are meant.
        """
        _must_steer(caller, action)
        if bool(runs) == (selection is not None) or len(runs) > MOST:
            raise InvalidInput(f"Name either the runs, at most {MOST}, or conditions that hold for them.")
        chosen = (
            [*dict.fromkeys(runs)] if selection is None else await self._chosen(caller, action, selection)
        )
        done: list[ActedView] = []
        for start in range(0, len(chosen), TOGETHER):
            some = chosen[start : start + TOGETHER]
            done += await asyncio.gather(*(self._try(caller, action, run, dry) for run in some))
        return done

    async def resolve(
        self, caller: Caller, run: str, step: str, choice: Literal["retry", "skip", "mark-undone"]
    ) -> None:
        """Decide for a run that needs an operator; kept in its history with the caller's name.

        Raises Conflict: the step does not wait for a decision, or this one is impossible.
        """
        caller.must_operate()
        record = await self._finder.live(caller, run)
        with translated():
            await self._flows.resolve(record.id, step, choice, by=caller.user_name)

    async def approve(
        self, caller: Caller, run: str, step: str, *, approved: bool = True, comment: str = ""
    ) -> None:
        """Answer the approval that a step waits for.  Raises Conflict: it waits for none."""
        caller.must_change()
        record = await self._finder.live(caller, run)
        with translated():
            await self._flows.approve(record.id, step, approved, by=caller.user_name, comment=comment)

    async def signal(
        self, caller: Caller, run: str, name: str, value: object = None, *, key: str | None = None
    ) -> None:
        """Tell the run something; the same `key` again changes nothing.  Raises Conflict: it has ended."""
        caller.must_change()
        if name.startswith("approval/"):
            raise InvalidInput("An approval is answered with 'skep run approve', not with a signal.")
        record = await self._finder.live(caller, run)
        with translated():
            await self._flows.signal(record.id, name, value, key=key, by=caller.user_name)

    async def list(
        self,
        caller: Caller,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        *,
        limit: int = 50,
        before: str | None = None,
        archived: bool = False,
    ) -> list[RunView]:
        """Newest first; `before`: the last id of the page before.  `archived`: of those instead."""
        limit, last = min(limit, MOST), None if before is None else RunId(before)
        if archived:
            found = await self._archived(await self._where(caller, selection), limit, last)
        else:
            meant = await self._where(caller, selection)
            found = await self._flows.list(where=meant, limit=limit, before=last)
        names = await self._finder.tenants()
        return [run_views.run(run, names.get(run.tenant, ""), archived=archived) for run in found]

    # which

    async def _archived(self, meant: RunFilter, limit: int, before: RunId | None) -> Sequence[RunRecord]:
        if meant.labels or meant.failed_step is not None:
            raise InvalidInput("Archived runs are found by flow, state and time only.")
        async with self._database.read() as connection:
            return await archive.runs(connection, meant, limit=limit, before=before)

    async def _chosen(self, caller: Caller, action: Action, selection: Selection) -> Sequence[RunId]:
        found = await self._where(caller, selection)
        return await self._flows.select(fitting(found, action), MOST)

    async def _where(self, caller: Caller, selection: Selection) -> RunFilter:
        labels: dict[str, str] = {}
        if selection.app is not None:
            async with self._database.read() as connection:
                labels["app"] = (await facts.load_app(connection, caller.tenant, selection.app)).app.id
        return where(selection, self._tenant(caller, selection), labels)

    def _tenant(self, caller: Caller, selection: Selection) -> TenantId | None:
        if not selection.tenants:
            return caller.tenant
        caller.must_operate()
        return None

    # what

    async def _act(self, caller: Caller, action: Action, run: str) -> str | None:
        """Answers the run that a rerun began."""
        _must_steer(caller, action)
        record = await self._finder.live(caller, run)
        with translated():
            begun = await self._steer[action](record.id, caller.user_name)
        return begun if isinstance(begun, str) else None

    async def _try(self, caller: Caller, action: Action, run: str, dry: bool) -> ActedView:
        try:
            record = await self._finder.live(caller, run)
            begun = None if dry else await self._act(caller, action, run)
        except SkepError as error:
            return ActedView(run=run, error=error.message)
        return ActedView(run=run, title=record.title, state=record.state.value, started=begun)


def _must_steer(caller: Caller, action: Action) -> None:
    """Raises Forbidden."""
    caller.must_change()
    if action in ("retry", "rerun"):
        caller.must_operate()

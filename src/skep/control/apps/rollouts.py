"""A release that comes into force: how far it is, what it waits for, how it ended; and steering it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from skep.control.apps.phases import phase, services, waits
from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.plans import facts
from skep.control.runs import run_views
from skep.control.runs.flow_faults import translated
from skep.control.runs.run_finding import RunFinder
from skep.flow import Database, FlowEngine, RunFilter, RunRecord, StepRecord
from skep.flow.runs import StepState
from skep.model.errors import Conflict, NotFound
from skep.model.views.base import Accepted
from skep.model.views.rollouts import RolloutService, RolloutView
from skep.store import releases, replicas
from skep.store.apps import AppRow
from skep.store.releases import ReleaseRow

FLOWS = ("app.apply", "app.move")


class Rollouts:
    """`now`: seconds since 1970."""

    def __init__(self, database: Database, flows: FlowEngine, now: Now) -> None:
        self._database = database
        self._flows = flows
        self._now = now
        self._finder = RunFinder(database, flows)

    async def show(self, caller: Caller, app: str) -> RolloutView:
        """The last release of the app.  Raises NotFound: there is none that is still told of."""
        row, record = await self._last(caller, app)
        steps = await self._flows.steps(record.id)
        release, found = await self._rows(row, record)
        names: dict[str, str | None] = {}
        waiting: list[str] = []
        if record.finished is None:
            why = await self._flows.why(record.id)
            names = {item: await self._finder.name(caller, item) for item in run_views.ids_in(why)}
            waiting = waits(run_views.waits(why, names.__getitem__))
        return _view(row, record, release, steps, found, waiting, self._now())

    async def pause(self, caller: Caller, app: str) -> Accepted:
        """Begin no further step.  What is under way comes to its end, and connections go on.

        Raises Conflict: nothing is coming into force.
        """
        caller.must_change()
        record = await self._under_way(caller, app)
        with translated():
            await self._flows.pause(record.id, caller.user_name)
        return Accepted(run=record.id)

    async def resume(self, caller: Caller, app: str) -> Accepted:
        """Go on after a pause, or in spite of the failures that it asked about.

        Raises Conflict: nothing is coming into force.
        """
        caller.must_change()
        record = await self._under_way(caller, app)
        asked = [one for one in await self._flows.steps(record.id) if _asks(one)]
        with translated():
            for one in asked:
                await self._flows.approve(record.id, one.name, True, by=caller.user_name)
            if not asked:
                await self._flows.resume(record.id, caller.user_name)
        return Accepted(run=record.id)

    async def abort(self, caller: Caller, app: str) -> Accepted:
        """Go back to the release before.  Raises Conflict: nothing is coming into force."""
        caller.must_change()
        record = await self._under_way(caller, app)
        with translated():
            await self._flows.cancel(record.id, caller.user_name)
        return Accepted(run=record.id)

    async def _under_way(self, caller: Caller, app: str) -> RunRecord:
        _, record = await self._last(caller, app)
        if record.finished is not None:
            raise Conflict(
                f"No release of app {app!r} is coming into force: the last one ended ({record.state.value}). "
                f"See 'skep releases {app}' and 'skep rollback {app}'."
            )
        return record

    async def _last(self, caller: Caller, app: str) -> tuple[AppRow, RunRecord]:
        async with self._database.read() as connection:
            row = (await facts.load_app(connection, caller.tenant, app)).app
        found = [
            record
            for flow in FLOWS
            for record in await self._flows.list(where=RunFilter(labels={"app": row.id}, flow=flow), limit=1)
        ]
        if not found:
            raise NotFound(f"No release of app {app!r} is told of any more; see 'skep releases {app}'.")
        return row, max(found, key=lambda record: record.created)

    async def _rows(
        self, row: AppRow, record: RunRecord
    ) -> tuple[ReleaseRow | None, tuple[RolloutService, ...]]:
        async with self._database.read() as connection:
            history = await releases.of_app(connection, row.id)
            members = await replicas.find(connection, app=row.id)
            containers = {one.id: one for one in await replicas.containers_of(connection, row.id)}
        label = record.labels.get("release", "")
        release = next((one for one in history if one.id == label), None)
        return release, services(members, containers, release)


def _asks(step: StepRecord) -> bool:
    return step.state is StepState.WAITING and step.name.endswith("-approval")


def _view(
    row: AppRow,
    record: RunRecord,
    release: ReleaseRow | None,
    steps: Sequence[StepRecord],
    found: tuple[RolloutService, ...],
    waiting: list[str],
    now: float,
) -> RolloutView:
    left = None
    if record.deadline is not None and record.finished is None:
        left = round((record.deadline - datetime.fromtimestamp(now, UTC)).total_seconds(), 1)
    return RolloutView(
        app=row.name,
        run=record.id,
        revision=release.revision if release else row.revision,
        note=release.note if release else "",
        strategy=release.spec.x_skep.release.strategy if release else "",
        state=record.state.value,
        phase=phase(record, steps),
        done=record.done,
        total=record.total,
        services=found,
        waits=tuple(waiting),
        created=rfc3339(record.created),
        finished=rfc3339(record.finished),
        deadline_in=left,
        error=record.error,
    )

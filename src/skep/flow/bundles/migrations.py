"""Preflight with real runs: looks up what the decision needs to know of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from skep.flow.bundles import records
from skep.flow.bundles.preflight import Fate, Misfit, Preflight, judge, migration
from skep.flow.bundles.shelf import Shelf, pins_of
from skep.flow.bundles.view import View
from skep.flow.definition.binding import read
from skep.flow.definition.plan import Flow, Plan, PlannedStep
from skep.flow.errors import FlowFault, InputError, Unloadable
from skep.flow.execution.loading import check_input
from skep.flow.runs import RunRecord, RunRow, RunState, StepRow
from skep.flow.steps import RunId
from skep.flow.storage.database import Database


class Migrator(Protocol):
    """What carries a migration out: an engine.  Each raises FlowFault if it cannot be done (any more)."""

    async def get(self, run: RunId) -> RunRecord: ...

    async def pause(self, run: RunId, by: str = "") -> None: ...

    async def resume(self, run: RunId, by: str = "") -> None: ...

    async def migrate(self, run: RunId, flow: Flow) -> None:
        """Have the unfinished run, of which no step is under way, go on with this flow."""


async def preflight(
    database: Database, shelf: Shelf, target: str, others: frozenset[str], view: View
) -> Preflight:
    """Of every unfinished run pinned to one of `others`, if `view`, with the target, came into force."""
    async with database.read() as connection:
        _, contents = await records.definitions_in_use(connection, ())
        plans = {key: plan for key, content in contents.items() if (plan := _plan(content)) is not None}
        touched = {key: plan for key, plan in plans.items() if pins_of(plan) & others}
        runs = await records.unfinished(connection, list(touched))
        steps = await records.steps_of(connection, [run.id for run in runs])
    lost = await _lost(shelf, {pin for plan in touched.values() for pin in pins_of(plan)})
    fates = [_fate(run, touched[run.definition], steps[run.id], view, lost) for run in runs]
    return Preflight(target, tuple(fates))


async def migrate_all(
    database: Database, engine: Migrator, found: Preflight, view: View, by: str
) -> Preflight:
    """Move the runs that can be; those that cannot any more finish on the old version."""
    fates = []
    for fate in found.fates:
        obstacles: Sequence[str] = fate.reasons
        if fate.verdict == "can be migrated":
            try:
                obstacles = await _migrate(database, engine, fate.run, view, by)
            except FlowFault as error:
                obstacles = (str(error),)
        verdict = "finishes on old" if obstacles and fate.verdict != "blocked" else fate.verdict
        fates.append(msgspec.structs.replace(fate, verdict=verdict, reasons=tuple(obstacles)))
    return Preflight(found.hash, tuple(fates))


async def _migrate(database: Database, engine: Migrator, run: RunId, view: View, by: str) -> Sequence[str]:
    """The run stands still while it is looked at again and moved; what stands in the way, if anything."""
    was_paused = (await engine.get(run)).state is RunState.PAUSED
    if not was_paused:
        await engine.pause(run, by)
    try:
        async with database.read() as connection:
            stored = await records.run_with_plan(connection, run)
            steps = await records.steps_of(connection, [run])
        if stored is None:
            return ("it has ended",)
        row, content = stored
        obstacles = obstacles_of(read(content), row, steps[run], view)
        if not obstacles:
            await engine.migrate(run, view.flow(row.flow))
        return obstacles
    finally:
        if not was_paused:
            await engine.resume(run, by)


def obstacles_of(old: Plan, run: RunRow, rows: Mapping[str, StepRow], view: View) -> Sequence[str]:
    """Why the run cannot go on with the view's flow of its name; nothing if it can."""
    try:
        flow = view.flow(run.flow)
        check_input(run.flow, flow.types, msgspec.json.decode(run.input))
    except InputError as error:
        return (f"the new version takes another input: {error}",)
    except (LookupError, ValueError) as error:
        return (str(error),)
    found = migration(old, run, rows, flow, misfit_in(view))
    return () if isinstance(found, Plan) else found


def misfit_in(view: View) -> Misfit:
    """Whether the code of the view can read what old code returned."""

    def misfit(step: PlannedStep, result: bytes) -> str | None:
        try:
            view.code(step.bundle, step.use).decode(result)
        except (msgspec.DecodeError, Unloadable) as error:
            return str(error)
        return None

    return misfit


def _fate(
    run: RunRow, plan: Plan, rows: Mapping[str, StepRow], view: View, lost: Callable[[str], str]
) -> Fate:
    pins = sorted(pins_of(plan))
    return judge(run, pins, "; ".join(filter(None, map(lost, pins))), obstacles_of(plan, run, rows, view))


async def _lost(shelf: Shelf, pins: set[str]) -> Callable[[str], str]:
    """Why the code of a version cannot be loaded, or ""."""
    reasons: dict[str, str] = {}
    for pin in pins:
        try:
            await shelf.ensure(pin)
        except (FlowFault, OSError) as error:
            reasons[pin] = str(error)
    return lambda pin: reasons.get(pin, "")


def _plan(content: bytes) -> Plan | None:
    try:
        return read(content)
    except Unloadable:
        return None

"""Runs that are taken up in another way than they were left: tried again, or with another definition."""

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow.errors import WrongState
from skep.flow.runs import RunState, StepState
from skep.flow.steps import RunId
from skep.flow.storage import archive, tables

_DONE = (StepState.SUCCEEDED.value, StepState.SKIPPED.value)


async def reopen(connection: AsyncConnection, run: RunId, worker: str | None) -> None:
    """The run is pending again and belongs to the worker; what succeeded stays, the rest is to be done.

    Raises:
        WrongState: it has not ended, or ended in success.
    """
    c, steps = tables.runs.c, tables.steps.c
    state = (await connection.execute(select(c.state).where(c.id == run).with_for_update())).scalar()
    if state not in (RunState.FAILED.value, RunState.CANCELLED.value):
        raise WrongState(f"run {run} cannot be tried again: it is {state}")
    if await archive.is_archived(connection, run):
        raise WrongState(f"run {run} cannot be tried again: it has been archived")
    again = [steps.run == run]
    if not await _is_undone(connection, run):
        again.append(steps.state.not_in(_DONE))
    await connection.execute(
        update(tables.steps)
        .where(*again)
        .values(state=StepState.PENDING.value, attempts=0, undo_attempts=0, result=None, blob=None, error="")
        .values(message="", started=None, finished=None)
    )
    await connection.execute(
        update(tables.runs)
        .where(c.id == run)
        .values(state=RunState.PENDING.value, cause="", error="", finished=None, crashes=0, paused=False)
        .values(round=c.round + 1, epoch=c.epoch + 1, worker=worker, deadline=None)
    )


async def _is_undone(connection: AsyncConnection, run: RunId) -> bool:
    """Whether nothing that it did was kept: then conditions are looked at anew, too."""
    steps = tables.steps.c
    query = select(steps.step).where(steps.run == run, steps.state == StepState.SUCCEEDED.value).limit(1)
    return (await connection.execute(query)).first() is None


async def redefine(connection: AsyncConnection, run: RunId, definition: str, total: int) -> None:
    """The run goes on by another definition, which is stored already.

    Raises:
        WrongState: it has ended meanwhile.
    """
    c = tables.runs.c
    change = update(tables.runs).where(c.id == run, c.finished.is_(None))
    changed = await connection.execute(change.values(definition=definition, total=total, epoch=c.epoch + 1))
    if changed.rowcount != 1:
        raise WrongState(f"run {run} has ended")

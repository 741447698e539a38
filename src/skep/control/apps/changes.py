"""One change of an app at a time, whichever process is asked for it.

Whether an app may be changed is decided in the transaction that starts the run of the change, so of two that
ask at the same moment one finds the run of the other.  Nobody waits there: it is a transaction that others
share, and who waits in it may wait for somebody who waits for him.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.flow import FlowEngine, RunFilter, RunRecord
from skep.model.errors import Conflict
from skep.store import apps
from skep.store.apps import AppRow
from skep.store.turns import Turn, try_turn

T = TypeVar("T")

TRIES = 10
_REST = 0.05
"""Seconds, about: as long as a commit of somebody else may take."""


class Overtaken(Exception):
    """Somebody else changes the app at this moment, or has since it was looked at: look again."""


async def claim(connection: AsyncConnection, flows: FlowEngine, app: AppRow) -> None:
    """The run that this transaction starts is the one that changes the app, as it was looked at.

    Raises:
        Conflict: another run is changing it.
        Overtaken: it is not as it was any more, or about to be changed.
    """
    if not await try_turn(connection, Turn.CHANGING, app.id):
        raise Overtaken
    active = await flows.within(connection, _of(app), limit=1)
    if active:
        raise busy(app, active[0])
    current = await apps.get(connection, app.id)
    if current is None or current.version != app.version:
        raise Overtaken


async def require_quiet(flows: FlowEngine, app: AppRow) -> None:
    """Raises Conflict: a run is changing the app."""
    active = await flows.list(where=_of(app), limit=1)
    if active:
        raise busy(app, active[0])


def busy(app: AppRow, run: RunRecord) -> Conflict:
    return Conflict(
        f"Run {run.id} ({run.title}) is changing app {app.name!r}: follow it with "
        f"'skep run follow {run.id}' or cancel it.",
        run=run.id,
    )


async def settled(name: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Look, plan and start anew when overtaken.

    Raises:
        Conflict: it is overtaken again and again.
    """
    for _ in range(TRIES):
        try:
            return await attempt()
        except (Overtaken, IntegrityError):  # that of an app of the same name, which is there by now
            await asyncio.sleep(random.uniform(_REST, 2 * _REST))  # noqa: S311  (that two do not meet again)
    raise Conflict(f"App {name!r} or its tenant is just being changed by somebody else: try again.")


def _of(app: AppRow) -> RunFilter:
    return RunFilter(labels={"app": app.id}, active=True)

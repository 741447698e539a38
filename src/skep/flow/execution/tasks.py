"""The tasks in which steps are carried out.

A task costs more than a step that only computes, so a step that did not wait when it was last called shares
one with others of its kind, each called when the one before it has ended.  As soon as one waits after all,
another task goes on with the rest.  To the step it makes no difference: while it lasts, the task is its own.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from skep.flow.admission.tickets import Ticket

_MOST_REMEMBERED = 20_000


class Tasks:
    """`carry_out(ticket, task)` calls the step to its end; the task is cancelled to interrupt it."""

    def __init__(self, carry_out: Callable[[Ticket, asyncio.Task[None]], Coroutine[Any, Any, None]]) -> None:
        self.under_way: set[asyncio.Task[None]] = set()
        self._carry_out = carry_out
        self._prompt: set[str] = set()
        """Codes that did not wait when they were last called."""
        self._queue: deque[Ticket] = deque()
        self._served = False
        """A task is about to take what is queued."""

    def begin(self, ticket: Ticket) -> None:
        """Call the step in this turn of the loop or the next, in the order of asking."""
        if ticket.code not in self._prompt:
            self._create(self._alone(ticket))
            return
        self._queue.append(ticket)
        if not self._served:
            self._serve()

    async def _alone(self, ticket: Ticket) -> None:
        waited = asyncio.Event()
        asyncio.get_running_loop().call_soon(waited.set)
        await self._carry_out(ticket, _this_task())
        if not waited.is_set():
            if len(self._prompt) >= _MOST_REMEMBERED:
                self._prompt.clear()
            self._prompt.add(ticket.code)

    async def _one_by_one(self) -> None:
        waited, task, untouched = asyncio.Event(), _this_task(), copy_context()
        asyncio.get_running_loop().call_soon(self._serve_rest, waited)
        while self._queue:
            ticket = self._queue.popleft()
            await self._carry_out(ticket, task)
            if waited.is_set():
                self._prompt.discard(ticket.code)
                return
            if copy_context() != untouched or _is_spoilt(task):
                return  # what the step left behind is not for the next one

    def _serve_rest(self, waited: asyncio.Event) -> None:
        """The turn of the loop is over: whoever began in it and has not ended yet waits for something."""
        waited.set()
        self._served = False
        if self._queue:
            self._serve()

    def _serve(self) -> None:
        self._served = True
        self._create(self._one_by_one())

    def _create(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine of a task asks)
    return task


def _is_spoilt(task: asyncio.Task[None]) -> bool:
    """The step has cancelled it; the second is what remains if it took that back without waiting."""
    return task.cancelling() > 0 or bool(getattr(task, "_must_cancel", False))

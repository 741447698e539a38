"""The log of a whole app: the logs of its replicas as one stream, every line with its replica."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from skep.control.callers import Caller
from skep.model.errors import NotFound
from skep.model.host import LogLine
from skep.model.views.apps import LogView
from skep.streams.pump import close

if TYPE_CHECKING:
    from skep.control.control import Control

LOOK_AGAIN = 2.0
"""Seconds between two looks for replicas that came after the following began."""


def labelled(replica: str, line: LogLine) -> LogView:
    return LogView(replica=replica, time=line.time, stream=line.stream, text=line.text)


async def replica_log(
    control: "Control",
    caller: Caller,
    app: str,
    replica: str,
    *,
    follow: bool,
    tail: int | None,
    since: str | None,
) -> AsyncIterator[LogView]:
    """The log of one replica."""
    lines = control.replicas.logs(caller, app, replica, follow=follow, tail=tail, since=since)
    try:
        async for line in lines:
            yield labelled(replica, line)
    finally:
        await close(lines)


async def app_log(
    control: "Control",
    caller: Caller,
    app: str,
    service: str | None,
    *,
    tail: int | None,
    since: str | None,
) -> AsyncIterator[LogView]:
    """What the replicas have written until now, ordered by time; `tail` counts for each replica.

    Only one line per replica is held unless `tail` asks for the end, so large logs cost no memory.
    """
    names = await _replicas(control, caller, app, service)
    logs = [replica_log(control, caller, app, name, follow=False, tail=tail, since=since) for name in names]
    heads = {index: line async for index, line in _first_lines(logs)}
    try:
        while heads:
            index = min(heads, key=lambda number: heads[number].time)
            yield heads[index]
            following = await anext(logs[index], None)
            if following is None:
                del heads[index]
            else:
                heads[index] = following
    finally:
        for log in logs:
            await close(log)


async def follow_app_log(
    control: "Control",
    caller: Caller,
    app: str,
    service: str | None,
    *,
    tail: int | None,
    since: str | None,
) -> AsyncIterator[LogView]:
    """What the replicas write from now on (after `tail` lines each), those that come later included.

    Ends when the app is removed.
    """
    queue: asyncio.Queue[LogView | BaseException] = asyncio.Queue(64)
    watcher = asyncio.create_task(_watch(control, caller, app, service, queue, tail, since))
    try:
        while True:
            line = await queue.get()
            if isinstance(line, NotFound):
                return
            if isinstance(line, BaseException):
                raise line
            yield line
    finally:
        watcher.cancel()


async def _watch(
    control: "Control",
    caller: Caller,
    app: str,
    service: str | None,
    queue: asyncio.Queue[LogView | BaseException],
    tail: int | None,
    since: str | None,
) -> None:
    """Keep one reader per replica; a log that ended (its container was replaced) is taken up again."""
    last: dict[str, str] = {}
    readers: dict[str, asyncio.Task[None]] = {}

    async def read(name: str) -> None:
        again = last.get(name)
        lines = replica_log(
            control, caller, app, name, follow=True, tail=None if again else tail, since=again or since
        )
        async for line in lines:
            if line.time != again:
                last[name] = line.time
                await queue.put(line)

    try:
        while True:
            for name in await _replicas(control, caller, app, service):
                if name not in readers or readers[name].done():
                    _raise_failure(readers.get(name))
                    readers[name] = asyncio.create_task(read(name))
            await asyncio.sleep(LOOK_AGAIN)
    except Exception as error:
        await queue.put(error)
    finally:
        for reader in readers.values():
            reader.cancel()


def _raise_failure(reader: asyncio.Task[None] | None) -> None:
    """A replica that went away between two looks is no failure of the whole."""
    error = reader.exception() if reader is not None else None
    if error is not None and not isinstance(error, NotFound):
        raise error


async def _first_lines(logs: list[AsyncIterator[LogView]]) -> AsyncIterator[tuple[int, LogView]]:
    for index, log in enumerate(logs):
        line = await anext(log, None)
        if line is not None:
            yield index, line


async def _replicas(control: "Control", caller: Caller, app: str, service: str | None) -> list[str]:
    replicas = await control.replicas.list(caller, app)
    if service is None:
        return [replica.name for replica in replicas]
    chosen = [replica.name for replica in replicas if replica.service == service]
    if not chosen:
        raise NotFound(f"App {app!r} has no service {service!r}.")
    return chosen

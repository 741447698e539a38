"""Requests wait while the database is being restarted, instead of being refused.

One that failed because the database was away is answered anew, from its beginning, unless it has written
something: nothing is done twice.  What cannot be repeated (uploads, what has begun to be answered) is not.
When the database has been away for longer than a restart takes, requests are refused at once.
"""

import asyncio
import random
import time
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send

from skep.flow.storage.effects import Effects, watched

log = structlog.get_logger("skep.api")

PATIENCE = 10.0
"""Seconds from the first failure on, and of an outage: no restart is to take longer.  Clients wait for 30."""
_FIRST, _LONGEST = 0.1, 1.0
LARGEST = 1024 * 1024
"""Bytes of a body that is kept, to be read again."""
_KEY = "skep.attempt"


class Patience:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, patience: float = PATIENCE) -> None:
        self._app = app
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        body, pause, deadline = _Body(receive), _FIRST, None
        while True:
            attempt, effects = await self._try(scope, body, send)
            deadline = deadline or time.monotonic() + self._patience
            if not attempt.held:
                return
            if effects.done or not body.whole or time.monotonic() + pause > deadline:
                await attempt.let_go()
                return
            log.info("api.waits", path=scope["path"], reason="the database is away")
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  (that all do not ask at once)
            pause = min(2 * pause, _LONGEST)

    async def _try(self, scope: Scope, body: "_Body", send: Send) -> "tuple[Attempt, Effects]":
        attempt = Attempt(send)
        own = cast("dict[str, Any]", scope) | {_KEY: attempt, "state": dict(scope.get("state") or {})}
        with watched() as effects:
            await self._app(cast("Scope", own), body.from_its_beginning(), attempt.send)
        return attempt, effects


class Attempt:
    """Passes the answer on, unless it only says that the database is `away`: that one is held back."""

    def __init__(self, send: Send) -> None:
        self.away = False
        self.held: list[Message] = []
        self._send = send
        self._begun = False

    async def send(self, message: Message) -> None:
        if self.away and not self._begun:
            self.held.append(message)
            return
        self._begun = True
        await self._send(message)

    async def let_go(self) -> None:
        for message in self.held:
            await self._send(message)


def database_is_away(scope: Scope) -> None:
    """Says so of the attempt that is being answered, if it is one."""
    attempt = cast("dict[str, Any]", scope).get(_KEY)
    if attempt is not None:
        attempt.away = True


class _Body:
    """What the client sends, kept as far as it is not too much."""

    def __init__(self, receive: Receive) -> None:
        self.whole = True
        """It can be read again, and the client is still there."""
        self._receive = receive
        self._kept: list[ReceiveMessage] = []
        self._size = 0

    def from_its_beginning(self) -> Receive:
        place = 0

        async def receive() -> ReceiveMessage:
            nonlocal place
            if place < len(self._kept):
                place += 1
                return self._kept[place - 1]
            message = await self._receive()
            self._keep(message)
            place = len(self._kept)
            return message

        return receive

    def _keep(self, message: ReceiveMessage) -> None:
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
        if message["type"] != "http.request" or self._size > LARGEST:
            self.whole = False
            self._kept.clear()
        else:
            self._kept.append(message)

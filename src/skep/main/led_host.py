"""A cluster in the directory of hosts, also while nobody leads it for a moment: who asks then, waits.

So runs that go on right after a start, or while a token is replaced, do not fail for it: what was asked of
one that is left is asked of the next one again, as all that hosts do may be asked twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from skep.control.ports import Host
from skep.model.errors import Unavailable
from skep.model.host import HostFacts
from skep.model.ids import HostName

PATIENCE = 30.0
"""Seconds that who asks waits for the cluster to be led."""
_STREAMS = frozenset({"logs", "export"})
_SCOPES = frozenset({"context"})
"""Methods of hosts that are no coroutines: asynchronous generators, and context managers."""


class LedHost:
    """Satisfies `Host` of control."""

    def __init__(self, name: HostName, facts: HostFacts, patience: float = PATIENCE) -> None:
        self._name = name
        self._facts = facts
        self._patience = patience
        self._host: Host | None = None
        self._led = asyncio.Event()
        self._left = asyncio.Event()
        self._why = ""
        rooms = ("engine", "disks", "fabric", "edge", "images", "spool")
        self.engine, self.disks, self.fabric, self.edge, self.images, self.spool = (
            _room(self, room) for room in rooms
        )

    @property
    def facts(self) -> HostFacts:
        """Those of before, while it is not led."""
        return self._facts if self._host is None else self._host.facts

    def lead(self, host: Host) -> None:
        self._host, self._facts, self._why = host, host.facts, ""
        self._left = asyncio.Event()
        self._led.set()

    def leave(self, why: str = "") -> None:
        """`why`: what is said to those who wait in vain."""
        self._host, self._why = None, why or self._why
        self._led.clear()
        self._left.set()

    async def host(self) -> Host:
        """Raises Unavailable: nobody leads it in time."""
        try:
            async with asyncio.timeout(self._patience):
                while self._host is None:
                    await self._led.wait()
        except TimeoutError:
            reason = f" {self._why}" if self._why else ""
            raise Unavailable(f"Host {self._name!r}, a cluster, is not led.{reason}") from None
        return self._host

    async def call(self, room: str, verb: str, words: tuple[Any, ...], more: dict[str, Any]) -> Any:
        """Raises what the host does; Unavailable: nobody leads it in time, or it was left amid a stream."""
        while True:
            host, left = await self.host(), self._left
            asked = asyncio.ensure_future(getattr(getattr(host, room), verb)(*words, **more))
            leaving = asyncio.ensure_future(left.wait())
            try:
                await asyncio.wait((asked, leaving), return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    return asked.result()
            finally:
                leaving.cancel()
                if asked.cancel():
                    await asyncio.wait((asked,))
            if any(isinstance(one, AsyncIterator) for one in (*words, *more.values())):
                raise Unavailable(f"Host {self._name!r}, a cluster, is led anew: send it again.")


class _Room:
    """One part of the host; its methods are looked up once it is led."""

    def __init__(self, led: LedHost, room: str) -> None:
        self._led = led
        self._room = room

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb in _STREAMS:
            return lambda *words, **more: self._stream(verb, words, more)
        if verb in _SCOPES:
            return lambda *words, **more: self._scope(verb, words, more)
        return lambda *words, **more: self._led.call(self._room, verb, words, more)

    async def _stream(self, verb: str, words: tuple[Any, ...], more: dict[str, Any]) -> AsyncIterator[Any]:
        async for one in (await self._method(verb))(*words, **more):
            yield one

    @asynccontextmanager
    async def _scope(self, verb: str, words: tuple[Any, ...], more: dict[str, Any]) -> AsyncIterator[Any]:
        entered: AbstractAsyncContextManager[Any] = (await self._method(verb))(*words, **more)
        async with entered as found:
            yield found

    async def _method(self, verb: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(getattr(await self._led.host(), self._room), verb)
        return found


def _room(led: LedHost, room: str) -> Any:
    """Every part has the methods of the host's own."""
    return _Room(led, room)

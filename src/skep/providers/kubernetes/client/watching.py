"""What a cluster has of one kind, known at every moment without asking.

A list, then a watch that goes on from there for ever: after the server has ended it, after a connection was
lost, from the version that was heard of last.  Only a version that the cluster no longer keeps is a new list.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import structlog

from skep.model.errors import Unavailable
from skep.providers.kubernetes.client.feeds import Told, expired
from skep.providers.kubernetes.client.patience import delay
from skep.providers.kubernetes.client.refusals import forbidden, translated

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace ("" if the kind has none) and name."""
_log = structlog.get_logger(__name__)


class Source(Protocol[T]):
    """Where it comes from; see `Feed`."""

    name: str

    async def list(self) -> tuple[str, list[T]]: ...

    def watch(self, version: str) -> AsyncIterator[Told[T]]: ...


@dataclass(frozen=True)
class Change(Generic[T]):
    """`object` as it is now, or, `gone`, as it was last; `before`: None of what was not there."""

    object: T
    before: T | None = None
    gone: bool = False


class Memory(Generic[T]):
    """The objects as told so far.  Pure: answers what changed."""

    def __init__(self) -> None:
        self.objects: dict[Key, T] = {}

    def replace(self, items: Iterable[T]) -> list[Change[T]]:
        """All of them are these now."""
        now = {key(item): item for item in items}
        gone = [Change(before, before, gone=True) for name, before in self.objects.items() if name not in now]
        news = [
            Change(item, self.objects.get(name))
            for name, item in now.items()
            if name not in self.objects or version(self.objects[name]) != version(item)
        ]
        self.objects = now
        return gone + news

    def take(self, told: Told[T]) -> list[Change[T]]:
        if told.object is None:
            return []
        name = key(told.object)
        before = self.objects.pop(name, None)
        if told.verb == "DELETED":
            return [Change(told.object, before, gone=True)]
        self.objects[name] = told.object
        return [Change(told.object, before)]


class Watched(Generic[T]):
    """Enter it to begin; leave it to end.  Read it once it is `synced`."""

    def __init__(self, source: Source[T]) -> None:
        self._source = source
        self._memory: Memory[T] = Memory()
        self._version = ""
        self._listed = asyncio.Event()
        self._answered = asyncio.Event()
        self._failed: Exception | None = None
        self._callbacks: list[Callable[[Change[T]], None]] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._log = _log.bind(kind=source.name)
        self.lists = 0
        """How often everything was asked for; once, if all goes well."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._forever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def failing(self) -> Exception | None:
        """Why nothing is heard of the cluster now; None while all is well."""
        return self._failed

    async def synced(self, patience: float | None = 20.0) -> Self:
        """Return once everything was heard of.

        Raises:
            Unavailable, Forbidden: it was not, in as many seconds (None: however long it takes).
        """
        try:
            async with asyncio.timeout(patience):
                await self._listed.wait()
        except TimeoutError:
            what = f"list {self._source.name}"
            if self._failed is None:
                raise Unavailable(f"The cluster does not answer in time ({what}).") from None
            raise translated(self._failed, what) from self._failed
        return self

    async def allowed(self, patience: float = 20.0) -> bool:
        """As `synced`, of what skep does without where it may not read it: answers whether it may.

        It is asked for again and again, so what is subscribed is told as soon as the rights are there.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._answered.wait()
        if forbidden(self._failed):
            return False
        await self.synced(0)
        return True

    def get(self, name: str, namespace: str = "") -> T | None:
        return self._memory.objects.get((namespace, name))

    def all(self) -> list[T]:
        return list(self._memory.objects.values())

    def labelled(self, **labels: str) -> list[T]:
        """With these of skep's labels: `labelled(container=ID)` is `skep.dev/container=ID`."""
        wanted = {f"skep.dev/{label}": value for label, value in labels.items()}.items()
        return [item for item in self.all() if wanted <= (_meta(item).labels or {}).items()]

    def subscribe(self, callback: Callable[[Change[T]], None]) -> Callable[[], None]:
        """Call it, in the order of events, for all there is now and for every change; answers how to end it.

        It must not block.
        """
        self._callbacks.append(callback)
        for item in self.all():
            callback(Change(item))
        return lambda: self._callbacks.remove(callback)

    async def changed(self) -> None:
        """Return after the next change."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds, looked at after each change."""
        while not holds():
            await self.changed()

    # -- hearing ----------------------------------------------------------------------------------

    async def _forever(self) -> None:
        failures = 0
        while True:
            try:
                async for _ in self._heard():
                    failures = self._well()
                continue
            except Exception as error:
                if expired(error):
                    self._version = ""
                self._fail(error, failures)
                pause = delay(failures, error, random.random(), time.time())  # noqa: S311 - no secret
                failures += 1
            await asyncio.sleep(pause)

    def _well(self) -> int:
        """Answers how often it has failed since."""
        if forbidden(self._failed):
            self._log.info("cluster.right-given")
        self._failed = None
        self._answered.set()
        return 0

    def _fail(self, error: Exception, failures: int) -> None:
        """Said once, and once more where it turns out to be a right that is missing."""
        if forbidden(error):
            if not forbidden(self._failed):
                refused = translated(error, f"watch {self._source.name}")
                self._log.warning("cluster.right-missing", error=refused.message)
            self._answered.set()
        else:
            tell = self._log.info if failures == 0 else self._log.debug
            tell("cluster.watch-lost", error=str(error) or type(error).__name__)
        self._failed = error

    async def _heard(self) -> AsyncIterator[None]:
        """Yields after everything that came well."""
        if not self._version:
            self._version, items = await self._source.list()
            self.lists += 1
            self._tell(self._memory.replace(items))
            self._listed.set()
            yield
        async for told in self._source.watch(self._version):
            self._tell(self._memory.take(told))
            self._version = told.version
            yield

    def _tell(self, changes: list[Change[T]]) -> None:
        for change in changes:
            for callback in list(self._callbacks):
                self._call(callback, change)
        if changes:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)

    def _call(self, callback: Callable[[Change[T]], None], change: Change[T]) -> None:
        """Who fails hears of the next change all the same, and so do the others."""
        try:
            callback(change)
        except Exception as error:
            self._log.exception("cluster.watch-callback-failed", error=str(error))


def key(item: Any) -> Key:
    return _meta(item).namespace or "", _meta(item).name


def version(item: Any) -> str:
    found: str = _meta(item).resourceVersion
    return found


def _meta(item: Any) -> Any:
    return item.metadata

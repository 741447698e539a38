"""Build contexts that somebody elsewhere holds open: a context manager cannot travel, its two halves can."""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from skep.control.ports import ImageStore

LONGEST = 2 * 3600.0
"""Seconds after which nobody builds in a context any more: whoever opened it has died."""

log = structlog.get_logger(__name__)


class OpenContexts:
    """Leaving closes them all."""

    def __init__(self, images: ImageStore, *, longest: float = LONGEST) -> None:
        self._images = images
        self._longest = longest
        self._open: dict[Path, contextlib.AsyncExitStack] = {}
        self._expiry: dict[Path, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in list(self._open):
            await self.close_context(place)
        if self._closing:
            await asyncio.wait(self._closing)

    async def open_context(self, archive: Path) -> Path:
        """As `ImageStore.context`, until it is closed."""
        stack = contextlib.AsyncExitStack()
        place = await stack.enter_async_context(self._images.context(archive))
        self._open[place] = stack
        loop = asyncio.get_running_loop()
        self._expiry[place] = loop.call_later(self._longest, self._expire, place)
        return place

    async def close_context(self, place: Path) -> None:
        """One that is not open is success."""
        if (timer := self._expiry.pop(place, None)) is not None:
            timer.cancel()
        if (stack := self._open.pop(place, None)) is not None:
            await stack.aclose()

    def _expire(self, place: Path) -> None:
        log.warning("build-context.expired", place=str(place))
        task = asyncio.create_task(self.close_context(place))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

"""Keeps a process for the code of a bundle while it is needed: started when called, again when it died."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from skep.flow.bundles.nursery import Nursery
from skep.flow.bundles.process import BundleProcess
from skep.flow.bundles.protocol import Description, Setup, StepShape
from skep.flow.bundles.refusals import BundleRefused
from skep.flow.bundles.shapes import Known, Reader
from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import Hint
from skep.flow.errors import CodeLost
from skep.flow.steps import Context, Retry, Step

log = structlog.get_logger(__name__)

PATIENCE = 30.0
"""Seconds to load the code."""
MOST_DEATHS = 3
"""A step that was under way each time its process died so often has failed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
STEADY = 60.0
"""Seconds a process must have lived to be forgiven the deaths before it."""
IDLE = 600.0
"""Seconds without a call after which a process is ended."""


class Isolation:
    """Calls the steps of one version of a bundle in a process of its own."""

    def __init__(self, nursery: Nursery, name: str, setup: Setup) -> None:
        self._nursery = nursery
        self.name = name
        self._setup = setup
        self._process: BundleProcess | None = None
        self._starting = asyncio.Lock()
        self._deaths: Counter[str] = Counter()
        self._failures = 0
        self._not_before = 0.0
        self._begun = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process is not None and self._process.alive else None

    async def call(self, step: str, context: Context[object], arguments: Mapping[str, object]) -> msgspec.Raw:
        """The result as JSON.

        Raises what the step did; Retry while no process can be had; CodeLost if it died meanwhile.
        """
        process = await self._running()
        try:
            result = await process.call(step, context, arguments)
        except CodeLost as error:
            self._deaths[context.key] += 1
            if self._deaths[context.key] >= MOST_DEATHS:
                del self._deaths[context.key]
                raise RuntimeError(f"{error}; so it did {MOST_DEATHS} times during this step") from error
            raise
        self._deaths.pop(context.key, None)
        return result

    async def warm(self) -> None:
        """Have the process ready.  Raises Retry if none can be had."""
        await self._running()

    async def close(self) -> None:
        """End the process; calls that come later fail."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        async with self._starting:
            await self._stop()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _running(self) -> BundleProcess:
        async with self._starting:
            if self._closed:
                raise RuntimeError(f"{self.name} is unloaded")
            if self._process is None or not self._process.alive:
                await self._restart()
            assert self._process is not None  # noqa: S101  (started just now)
            return self._process

    async def _restart(self) -> None:
        loop = asyncio.get_running_loop()
        await self._stop()
        if (left := self._not_before - loop.time()) > 0:
            await asyncio.sleep(left)
        try:
            self._process = await BundleProcess.start(self._nursery, self.name, self._setup, PATIENCE)
        except (BundleRefused, OSError) as error:
            self._count_failure()
            raise Retry(f"there is no process for {self.name}: {error}", after=self._pause()) from error
        self._begun = loop.time()
        self._process.on_death(self._died)
        self._watch_idleness()

    def _died(self) -> None:
        if asyncio.get_running_loop().time() - self._begun > STEADY:
            self._failures = 0
        self._count_failure()

    def _count_failure(self) -> None:
        self._failures += 1
        self._not_before = asyncio.get_running_loop().time() + self._pause()

    def _pause(self) -> float:
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 20)))

    def _watch_idleness(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._end_if_idle)

    def _end_if_idle(self) -> None:
        process, loop = self._process, asyncio.get_running_loop()
        if process is None or not process.alive:
            return
        if process.calls or loop.time() - process.used < IDLE:
            self._watch_idleness()
            return
        self._process = None
        task = loop.create_task(process.stop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.stop()


def remote_code(
    isolation: Isolation, description: Description, bundle: str, known: Known
) -> tuple[dict[str, Code], dict[str, Hint]]:
    """The steps and types that the process offers, to be wired and called like any others."""
    reader = Reader(description.table, known)
    steps = {shape.name: _code(isolation, shape, bundle, reader) for shape in description.steps}
    return steps, {name: reader.hint(shape) for name, shape in description.types.items()}


def _code(isolation: Isolation, shape: StepShape, bundle: str, reader: Reader) -> Code:
    async def do(cx: Context[Any], /, **arguments: object) -> msgspec.Raw:
        return await isolation.call(shape.name, cx, arguments)

    step: Step[Any, Any, Any] = Step(
        do,
        kind=shape.kind,
        name=shape.name,
        retry=shape.retry,
        timeout=shape.timeout,
        heartbeat=shape.heartbeat,
    )
    if shape.undo:
        step.undo(do)  # the context says which of the two is meant
    returns = reader.hint(shape.returns)
    return Code(
        name=shape.name,
        step=step,
        parameters={name: reader.hint(hint) for name, hint in shape.parameters.items()},
        required=shape.required,
        returns=returns,
        decode=msgspec.json.Decoder(returns).decode,
        bundle=bundle,
    )

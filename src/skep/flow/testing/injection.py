"""What a trial does around each call of a step's code: fail it, repeat it, watch it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from skep.flow.definition.catalogue import Code
from skep.flow.definition.registry import Registry
from skep.flow.steps import Context, Step

Proceed = Callable[[], Awaitable[Any]]
Around = Callable[[Code, Context[Any], Proceed], Awaitable[Any]]
"""What is done in place of a step's code: `proceed()` calls it."""


class Injected(Exception):
    """The failure that a trial puts into a step."""


async def untouched(_code: Code, _cx: Context[Any], proceed: Proceed) -> Any:
    return await proceed()


class Failing:
    """The step of that name (or its undo) fails, the first so many times it is tried; None: always."""

    def __init__(
        self, step: str, *, after_its_effect: bool, times: int | None = None, undo: bool = False
    ) -> None:
        self._step = step
        self._late = after_its_effect
        self._left = times
        self._undo = undo

    def heal(self) -> None:
        """It fails no more."""
        self._left = 0

    async def __call__(self, _code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        if cx.step != self._step or cx.undoing is not self._undo or self._left == 0:
            return await proceed()
        if self._left is not None:
            self._left -= 1
        if self._late:
            await proceed()
        raise Injected(f"injected into {'the undo of ' if self._undo else ''}{self._step}")


def failing(step: str, *, after_its_effect: bool, times: int | None = None, undo: bool = False) -> Around:
    """The step of that name (or its undo) fails, the first so many times it is tried; None: always."""
    return Failing(step, after_its_effect=after_its_effect, times=times, undo=undo)


def repeating(around: Around = untouched) -> Around:
    """Every do and undo of an idempotent step is called twice; the other kinds are never repeated."""

    async def twice(code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        async def both() -> Any:
            await proceed()
            return await proceed()

        return await around(code, cx, both if code.kind == "idempotent" else proceed)

    return twice


def both(outer: Around, inner: Around) -> Around:
    """One around the other."""

    async def around(code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        return await outer(code, cx, lambda: inner(code, cx, proceed))

    return around


class Watching:
    """An `Around` that keeps book of which steps were called, in the order of their first call."""

    def __init__(self, around: Around = untouched) -> None:
        self._around = around
        self.done: dict[str, None] = {}
        self.undone: dict[str, None] = {}

    async def __call__(self, code: Code, cx: Context[Any], proceed: Proceed) -> Any:
        (self.undone if cx.undoing else self.done)[cx.step] = None
        return await self._around(code, cx, proceed)


def wrapped(code: Code, around: Around) -> Code:
    """The same code, with something done around each call of it and of its undo."""
    step = code.step

    async def do(cx: Context[Any], /, **arguments: Any) -> Any:
        return await around(code, cx, lambda: step.do(cx, **arguments))

    double: Step[Any, Any, Any] = Step(
        do,
        kind=step.kind,
        name=step.name,
        retry=step.retry,
        timeout=step.timeout,
        heartbeat=step.heartbeat,
    )
    undo = step.undo_do
    if undo is not None:

        async def undo_do(cx: Context[Any], /, **arguments: Any) -> Any:
            return await around(code, cx, lambda: undo(cx, **arguments))

        double.undo_do = undo_do
    return replace(code, step=double)


class InjectingRegistry(Registry):
    """The flows and steps of a registry, with something done around each call of a step or an undo."""

    def __init__(self, base: Registry, around: Around) -> None:
        super().__init__(base, base.bundle)
        self._base = base
        self._around = around

    def code(self, bundle: str, use: str) -> Code:
        return wrapped(self._base.code(bundle, use), self._around)

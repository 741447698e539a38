"""Whether what somebody does has had an effect on the database, so that it must not simply be done again.

What is written by a task, or by those that it begins, counts for whoever watches it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Effects:
    """`done`: something was written, or may have been."""

    def __init__(self) -> None:
        self.done = False


_watching: ContextVar[Effects] = ContextVar("effects")


@contextmanager
def watched() -> Iterator[Effects]:
    """Of what happens within the block."""
    effects = Effects()
    token = _watching.set(effects)
    try:
        yield effects
    finally:
        _watching.reset(token)


@contextmanager
def harmless() -> Iterator[None]:
    """What is written within may be written twice."""
    with watched():
        yield


def current() -> Effects:
    """Those of the task; nobody looks at them if nobody watches it."""
    return _watching.get(None) or Effects()

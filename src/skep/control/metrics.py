"""Metrics: how the flow engine fares, for Prometheus."""

from typing import Protocol

from skep.control.callers import Caller
from skep.model.errors import Unauthenticated


class Source(Protocol):
    async def render(self) -> bytes:
        """Everything, in Prometheus' text format."""


class Metrics:
    """`public`: anybody may read them, without a token; they name flows, steps and numbers only."""

    def __init__(self, source: Source, *, public: bool = False) -> None:
        self._source = source
        self.public = public

    async def render(self, caller: Caller | None) -> bytes:
        """In Prometheus' text format.

        Raises:
            Unauthenticated, Forbidden: they are not public, and the caller is no operator.
        """
        if not self.public:
            if caller is None:
                raise Unauthenticated("Metrics need the token of an operator, or 'metrics: open'.")
            caller.must_operate()
        return await self._source.render()

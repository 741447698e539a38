"""Deliveries as a bus may make them: some come twice, some are lost, all take their time.

engine = FlowEngine(..., dispatch=Deliveries(seed=7))
"""

import asyncio
import random
from collections import Counter

from skep.flow.execution.attempt import Call, Lost, Outcome


class Deliveries:
    """A `Dispatch` that disturbs calls and answers, each with a probability of its own.

    What happens to the n-th delivery of a step depends on nothing but `seed`.  A call that is lost never
    reaches its code; an answer that is lost comes from code that has run.  Only what may be called twice
    comes twice: idempotent steps and undos.  Calls and answers are late by up to `latest` seconds each, so
    those of steps that run side by side overtake each other.
    """

    def __init__(
        self,
        seed: int,
        *,
        twice: float = 0.25,
        call_lost: float = 0.15,
        answer_lost: float = 0.15,
        latest: float = 10.0,
    ) -> None:
        self._seed = seed
        self._twice = twice
        self._call_lost = call_lost
        self._answer_lost = answer_lost
        self._latest = latest
        self._counts: Counter[tuple[str, bool]] = Counter()
        self.disturbed = 0
        """How many calls came twice or were lost."""

    async def __call__(self, call: Call) -> Outcome:
        chance = self._chance(call)
        await asyncio.sleep(chance.uniform(0.0, self._latest))
        if self._happens(chance, self._call_lost):
            return Lost("the call was lost")
        outcome = await call()
        if _may_come_twice(call) and self._happens(chance, self._twice):
            outcome = await call()
        await asyncio.sleep(chance.uniform(0.0, self._latest))
        return Lost("the answer was lost") if self._happens(chance, self._answer_lost) else outcome

    def _chance(self, call: Call) -> random.Random:
        which = call.context.step, call.context.undoing
        self._counts[which] += 1
        return random.Random(f"{self._seed}/{which}/{self._counts[which]}")  # noqa: S311

    def _happens(self, chance: random.Random, probability: float) -> bool:
        happens = chance.random() < probability
        self.disturbed += happens
        return happens


def _may_come_twice(call: Call) -> bool:
    return call.code.kind == "idempotent" or call.context.undoing

"""Steps that decide who serves, and tell it: `recall`, then `shift`, then `announce`."""

from skep.control.flows.environment import Cloud
from skep.flow import step
from skep.model.ids import ReplicaId, ServiceId
from skep.store import replicas

Weights = dict[ReplicaId, int]


@step(kind="transactional")
async def shift(cx: Cloud, weights: Weights, before: Weights) -> None:
    """From now on the replicas get these shares of new connections; undone, those of `before`."""
    await replicas.set_weights(cx.tx, weights)


@shift.undo
async def _shift_back(cx: Cloud, weights: Weights, before: Weights) -> None:
    await replicas.set_weights(cx.tx, before)


@step
async def recall(cx: Cloud, services: list[ServiceId]) -> None:
    """Comes before a shift and does nothing: undone, which is after the shift was, it tells every host."""


@recall.undo
async def _tell_again(cx: Cloud, services: list[ServiceId]) -> None:
    await cx.env.traffic.announce(services)


@step(retry=20)
async def announce(cx: Cloud, services: list[ServiceId]) -> None:
    """Every host that is not lost leads connections as the rows have it.

    Raises:
        Unavailable: one has not heard it.
    """
    await cx.env.traffic.announce(services)

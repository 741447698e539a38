"""What asks for admission: one step, or one undo, that could run now."""

from typing import Any

from msgspec import Struct

from skep.flow.steps import RunId


class Use(Struct, frozen=True):
    """A key that a step counts against, and what its document allows; an operator's policy goes before."""

    key: str
    concurrency: int | None = None
    rate: float | None = None
    """Per second."""
    burst: float | None = None


class Ticket(Struct, eq=False):
    """`step` is the name in the run; `code` the name of its function, by which cost is measured.

    Beside `uses` it counts against `tenant/<tenant>`, `flow/<flow>`, `step/<code>` and `host/<route>`.
    """

    run: RunId
    step: str
    tenant: str
    flow: str
    code: str
    route: str
    priority: int
    payload: Any
    """What the worker needs to start it; admission does not look at it."""
    uses: tuple[Use, ...] = ()
    after: int = 0
    """The position in the journal of what must be durable before it starts."""
    queued: float = 0.0
    """When it was found that it could not go at once, by the loop's clock."""

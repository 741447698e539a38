"""The queues between the processes; for admins."""

from litestar import Router, get
from litestar.params import FromQuery

from skep.api.asking import Caller, Control
from skep.model.views.system import DeadLetterView, QueueView


@get("/queues")
async def list_queues(control: Control, caller: Caller) -> list[QueueView]:
    """What waits for each host and for the workers of each zone, and how many serve it."""
    return await control.queues.list(caller)


@get("/queues/dead")
async def list_dead_letters(
    control: Control, caller: Caller, limit: FromQuery[int] = 100
) -> list[DeadLetterView]:
    """What nobody could carry out, oldest first."""
    return await control.queues.dead(caller, limit)


router = Router(path="/v1", tags=["queues"], route_handlers=[list_queues, list_dead_letters])

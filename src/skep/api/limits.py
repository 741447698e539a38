"""Limits: how many steps at once, and per second, by key."""

from litestar import Router, delete, get, put
from litestar.params import FromQuery, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import SetLimit
from skep.model.views.limits import LimitView


@get("/")
async def list_limits(control: Control, caller: Caller) -> list[LimitView]:
    """What operators have set, by key; members see those of their tenant."""
    return await control.limits.list(caller)


@put("/")
async def set_limit(control: Control, caller: Caller, data: JSONBody[SetLimit]) -> LimitView:
    """Put it in force for the key in place of what was, at once and in every worker; for admins."""
    return await control.limits.put(
        caller,
        data.key,
        concurrency=data.concurrency,
        rate=data.rate,
        burst=data.burst,
        weight=data.weight,
    )


@delete("/", status_code=204)
async def remove_limit(control: Control, caller: Caller, key: FromQuery[str]) -> None:
    """Leave the key to less exact ones and to the flows."""
    await control.limits.remove(caller, key)


router = Router(path="/v1/limits", tags=["limits"], route_handlers=[list_limits, set_limit, remove_limit])

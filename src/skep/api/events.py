"""Events: what changes in the cloud, as it happens."""

from litestar import Router, get
from litestar.params import FromQuery
from litestar.response import Stream

from skep.api.asking import Caller, Control
from skep.api.streams import EVENT_STREAM, answers, event_stream
from skep.model.views.apps import EventView


@get("/", responses=answers(EventView, EVENT_STREAM))
async def follow_events(control: Control, caller: Caller, app: FromQuery[str | None] = None) -> Stream:
    """Changes of state from now on as server-sent events (EventView), of the tenant or of one app."""
    return event_stream(control.events.follow(caller, app=app), event=lambda item: item.kind)


router = Router(path="/v1/events", tags=["events"], route_handlers=[follow_events])

"""Events: what changes in the cloud, as it happens."""

from typing import TYPE_CHECKING

from litestar import Router, get
from litestar.response import Stream

from skep.api.streams import EVENT_STREAM, answers, event_stream
from skep.control.callers import Caller
from skep.model.views import EventView

if TYPE_CHECKING:
    from skep.control.control import Control


@get("/", responses=answers(EventView, EVENT_STREAM))
async def follow_events(control: "Control", caller: Caller, app: str | None = None) -> Stream:
    """Changes of state from now on as server-sent events (EventView), of the tenant or of one app."""
    return event_stream(control.events.follow(caller, app=app), event=lambda item: item.kind)


router = Router(path="/v1/events", tags=["events"], route_handlers=[follow_events])

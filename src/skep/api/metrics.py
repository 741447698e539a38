"""Metrics for Prometheus."""

from typing import Any

from litestar import Request, Response, Router, get

from skep.api.asking import Control
from skep.api.auth import PUBLIC, bearer_secret

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""


@get("/metrics", opt=PUBLIC, tags=["system"])
async def metrics(request: Request[Any, Any, Any], control: Control) -> Response[bytes]:
    """Metrics of the flow engine in Prometheus' text format; for admins, or for anybody (`metrics: open`)."""
    caller = None
    if not control.metrics.public:
        caller = await control.auth.authenticate(bearer_secret(request.headers.get("Authorization", "")))
    return Response(await control.metrics.render(caller), media_type=CONTENT_TYPE)


router = Router(path="/", route_handlers=[metrics])

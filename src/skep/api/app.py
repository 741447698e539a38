"""The API as one ASGI application.  `main` builds it around control and serves it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware

from skep.api import (
    apps,
    bundles,
    clusters,
    disks,
    endpoints,
    events,
    flows,
    hosts,
    images,
    joining,
    limits,
    metrics,
    moves,
    networks,
    queues,
    releases,
    replicas,
    rollouts,
    runs,
    schedules,
    security_groups,
    system,
    tenants,
    tokens,
    users,
)
from skep.api.auth import BearerAuthentication, provide_caller
from skep.api.crowd import Crowd, CrowdControl
from skep.api.errors import answer_problem
from skep.api.turnstile import Turnstile

if TYPE_CHECKING:
    from skep.control.control import Control

ROUTERS = [
    module.router
    for module in (
        system,
        apps,
        releases,
        rollouts,
        moves,
        replicas,
        images,
        runs,
        flows,
        bundles,
        schedules,
        limits,
        metrics,
        events,
        disks,
        networks,
        security_groups,
        endpoints,
        hosts,
        clusters,
        joining,
        queues,
        tenants,
        users,
        tokens,
    )
]

BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of a JSON body; configs and secrets travel inside.  Uploads have their own limit."""


def build_app(control: "Control", ready: Callable[[], bool] = lambda: True) -> Litestar:
    """The whole API over `control`; `/readyz` answers what `ready` says."""
    return Litestar(
        ROUTERS,
        dependencies=dependencies(control),
        middleware=[
            DefineMiddleware(BearerAuthentication, control=control),
            DefineMiddleware(CrowdControl, crowd=Crowd()),
        ],
        exception_handlers={Exception: answer_problem},
        request_max_body_size=BODY_LIMIT,
        state=State({"ready": ready, "control": control, "turnstile": Turnstile()}),
        openapi_config=None,
        logging_config=None,
    )


def dependencies(control: "Control | None") -> dict[str, Provide]:
    """What handlers may ask for besides the parts of the request."""
    return {
        "control": Provide(lambda: control, sync_to_thread=False),
        "caller": Provide(provide_caller, sync_to_thread=False),
    }

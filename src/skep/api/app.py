"""The API as one ASGI application.  `main` builds it around control and serves it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from litestar import Litestar
from litestar.datastructures import State
from litestar.middleware import DefineMiddleware

from skep.api.auth import BearerAuthentication
from skep.api.crowd import Crowd, CrowdControl
from skep.api.errors import answer_problem
from skep.api.openapi import document
from skep.api.routers import ROUTERS, dependencies
from skep.api.turnstile import Turnstile

if TYPE_CHECKING:
    from skep.control.control import Control

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
        state=State({"ready": ready, "control": control, "turnstile": Turnstile(), "document": document}),
        openapi_config=None,
        logging_config=None,
    )

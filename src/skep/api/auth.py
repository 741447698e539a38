"""Who is asking: a bearer token in the Authorization header, checked before anything of a request is read.

Every route needs one except those marked PUBLIC.  A WebSocket is refused with the same problem document as
any request, where the server can send one (the ASGI extension `websocket.http.response`).
"""

from typing import TYPE_CHECKING, Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp, Receive, Scope, Send

from skep.api.errors import PROBLEM_JSON, problem_of
from skep.control.callers import Caller
from skep.model.errors import SkepError, Unauthenticated

if TYPE_CHECKING:
    from skep.control.control import Control

PUBLIC: dict[str, Any] = {"exclude_from_auth": True}
"""`opt` of a handler that anybody may call."""

TENANT_HEADER = "X-Skep-Tenant"


class BearerAuthentication(AbstractAuthenticationMiddleware):
    """Turns the token of a request into its Caller, or refuses the request."""

    def __init__(self, app: ASGIApp, control: "Control") -> None:
        super().__init__(app)
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SkepError as error:
            if not _can_refuse(scope):
                raise
            await _refuse_websocket(send, error)

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        secret = bearer_secret(connection.headers.get("Authorization", ""))
        tenant = connection.headers.get(TENANT_HEADER)
        caller = await self._control.auth.authenticate(secret, tenant)
        return AuthenticationResult(user=caller, auth=None)


def bearer_secret(header: str) -> str:
    """The token of an Authorization header (RFC 6750).

    Raises:
        Unauthenticated: there is none.
    """
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("This needs a token: send the header 'Authorization: Bearer TOKEN'.")
    return secret.strip()


def provide_caller(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """The dependency `caller` of handlers."""
    caller: Caller = request.scope["user"]
    return caller


def _can_refuse(scope: Scope) -> bool:
    return scope["type"] == ScopeType.WEBSOCKET and "websocket.http.response" in (scope["extensions"] or {})


async def _refuse_websocket(send: Send, error: SkepError) -> None:
    problem = problem_of(error)
    headers = [(b"content-type", PROBLEM_JSON.encode())]
    start = {"type": "websocket.http.response.start", "status": problem.status, "headers": headers}
    body = {"type": "websocket.http.response.body", "body": msgspec.json.encode(problem)}
    await send(start)  # type: ignore[arg-type]  # an extension that Litestar's types do not know
    await send(body)  # type: ignore[arg-type]

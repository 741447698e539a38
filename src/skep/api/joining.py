"""How hosts join and renew their certificates, and what operators give them for it.

`join` needs a join token in place of a user's, `renew` a signature made with the host's certificate.
"""

from typing import Any

from litestar import Router, delete, get, post
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody

from skep.api.asking import Caller, Control
from skep.api.auth import PUBLIC, bearer_secret
from skep.api.bodies import JoinHost, NewJoinToken, RenewCertificate
from skep.model.views.joining import (
    AuthorityView,
    Belonging,
    CertificateRenewed,
    HostJoined,
    JoinTokenCreated,
    JoinTokenView,
)

BUS_USER = "X-Skep-Bus-User"


def not_too_often(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard, asked before anything of the body is read."""
    connection.app.state.turnstile.enter(connection.client.host if connection.client else "")


async def with_join_token(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard, asked before anything of the body is read."""
    await connection.app.state.control.enrolment.admit(
        bearer_secret(connection.headers.get("Authorization", ""))
    )


@get("/authority", opt=PUBLIC, security=[{}])
async def show_authority(control: Control) -> AuthorityView:
    """Who certifies the processes of the installation.  Compare the fingerprint with one you trust."""
    return await control.authorities.show(make=False)


@get("/hosts/join-tokens")
async def list_join_tokens(control: Control, caller: Caller) -> list[JoinTokenView]:
    """The join tokens of the last 30 days, never their secrets; for admins."""
    return await control.join_tokens.list(caller)


@post("/hosts/join-tokens")
async def create_join_token(
    control: Control, caller: Caller, data: JSONBody[NewJoinToken]
) -> JoinTokenCreated:
    """Make a token with which one host can join.  Its secret is in this answer only; for admins."""
    return await control.join_tokens.create(
        caller,
        data.zone,
        host=data.host,
        pool=data.pool,
        expires_in=data.expires_in,
        again=data.again,
    )


@delete("/hosts/join-tokens/{token:str}")
async def revoke_join_token(control: Control, caller: Caller, token: FromPath[str]) -> None:
    """Revoke a join token, by its id.  A host that has joined with it stays."""
    await control.join_tokens.revoke(caller, token)


@post("/hosts/join", opt=PUBLIC, guards=[not_too_often, with_join_token])
async def join_host(
    request: Request[Any, Any, Any], control: Control, data: JSONBody[JoinHost]
) -> HostJoined:
    """Become a host: the bearer token is a join token.  The same key may ask again while the token lives."""
    secret = bearer_secret(request.headers.get("Authorization", ""))
    return await control.enrolment.join(
        secret,
        data.request,
        data.facts,
        name=data.name,
        hostname=data.hostname,
        address=data.address,
        port=data.port,
        user=_bus_user(request),
    )


@post("/hosts/renew", opt=PUBLIC, security=[{}], guards=[not_too_often])
async def renew_certificate(
    request: Request[Any, Any, Any], control: Control, data: JSONBody[RenewCertificate]
) -> CertificateRenewed:
    """A new certificate for a host that has one.  The signature is its proof; no token is needed."""
    return await control.enrolment.renew(data.certificate, data.request, data.signature, _bus_user(request))


@post("/hosts/belongs", status_code=200, opt=PUBLIC, security=[{}], guards=[not_too_often])
async def host_belongs(control: Control, data: JSONBody[RenewCertificate]) -> Belonging:
    """Whether a host with a certificate of ours is one of ours still.  Asked as for a renewal."""
    return Belonging(belongs=await control.enrolment.belongs(data.certificate, data.request, data.signature))


def _bus_user(request: Request[Any, Any, Any]) -> str | None:
    """What the host logs in to the bus with so far.

    In a header: API processes of the release before refuse what they do not know in a body.
    """
    return request.headers.get(BUS_USER)


router = Router(
    path="/v1",
    tags=["hosts"],
    route_handlers=[
        show_authority,
        list_join_tokens,
        create_join_token,
        revoke_join_token,
        join_host,
        renew_certificate,
        host_belongs,
    ],
)

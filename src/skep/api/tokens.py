"""Tokens: how users prove who they are."""

from litestar import Router, delete, get, post
from litestar.params import FromPath, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import NewToken
from skep.model.views.tenants import TokenCreated, TokenView


@get("/")
async def list_tokens(control: Control, caller: Caller) -> list[TokenView]:
    """The tokens of the caller; an admin sees all.  Never their secrets."""
    return await control.tokens.list(caller)


@post("/")
async def create_token(control: Control, caller: Caller, data: JSONBody[NewToken]) -> TokenCreated:
    """Make a token.  Its secret is in this answer and nowhere else, ever again."""
    return await control.tokens.create(caller, data.name, user=data.user, expires_in=data.expires_in)


@delete("/{token:str}")
async def revoke_token(control: Control, caller: Caller, token: FromPath[str]) -> None:
    """Revoke a token, by its id; requests with it are refused from now on."""
    await control.tokens.revoke(caller, token)


router = Router(path="/v1/tokens", tags=["tokens"], route_handlers=[list_tokens, create_token, revoke_token])

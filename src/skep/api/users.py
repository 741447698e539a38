"""Users; admins manage them, everybody may ask who they are."""

from litestar import Router, delete, get, post
from litestar.params import FromPath, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import NewUser
from skep.model.views.tenants import UserView, WhoAmI


@get("/users")
async def list_users(control: Control, caller: Caller) -> list[UserView]:
    """All users for an admin; others see themselves."""
    return await control.users.list(caller)


@post("/users")
async def create_user(control: Control, caller: Caller, data: JSONBody[NewUser]) -> UserView:
    """Make a user of a tenant; it needs a token to do anything."""
    return await control.users.create(caller, data.name, data.tenant, data.role)


@delete("/users/{user:str}")
async def remove_user(control: Control, caller: Caller, user: FromPath[str]) -> None:
    """Remove a user with all its tokens."""
    await control.users.remove(caller, user)


@get("/whoami")
async def whoami(control: Control, caller: Caller) -> WhoAmI:
    """The user of this token, its role, and the tenant it acts in."""
    return await control.users.whoami(caller)


router = Router(path="/v1", tags=["users"], route_handlers=[list_users, create_user, remove_user, whoami])

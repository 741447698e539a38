"""`skep user`."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.output import age, confirm, say, show, show_one
from skep.model.views.tenants import UserView

app = App(name="user", help="Users: list, create, remove.")


@app.command(name="ls")
def list_users(*, common: Common = DEFAULT) -> None:
    """List the users.

    Example: `skep user ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("TENANT", lambda one: one.tenant),
        ("ROLE", lambda one: one.role),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/users", list[UserView]), columns, common.output)


@app.command
def create(
    name: str,
    /,
    *,
    of: Annotated[str, Parameter(name="--of")] = "default",
    role: Literal["admin", "member", "viewer"] = "member",
    common: Common = DEFAULT,
) -> None:
    """Make a user of a tenant. It needs a token to do anything. For admins.

    Example: `skep user create ann --of acme && skep token create laptop --user ann`

    Parameters
    ----------
    name
        Lower-case letters, digits and dashes.
    of
        Tenant the user belongs to.
    role
        admin: the operator; member: does everything in the tenant; viewer: reads it.
    """
    body = {"name": name, "tenant": of, "role": role}
    made = common.connect().post("/v1/users", UserView, body)
    fields = [
        ("User", lambda one: one.name),
        ("Tenant", lambda one: one.tenant),
        ("Role", lambda one: one.role),
    ]
    show_one(made, fields, common.output)


@app.command
def rm(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Remove a user with all its tokens. For admins.

    Example: `skep user rm ann --yes`

    Parameters
    ----------
    name
        Name of the user.
    yes
        Do not ask.
    """
    confirm(f"Remove user {name} with all its tokens?", yes)
    common.connect().act("DELETE", f"/v1/users/{name}")
    say(f"Removed {name}.")

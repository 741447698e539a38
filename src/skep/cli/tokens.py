"""`skep token`."""

from cyclopts import App

from skep.cli.common import DEFAULT, Common
from skep.cli.output import age, document, parse_span, say, show
from skep.model.views.tenants import TokenCreated, TokenView

app = App(name="token", help="Tokens: list, create, revoke.")


@app.command(name="ls")
def list_tokens(*, common: Common = DEFAULT) -> None:
    """List the tokens; their secrets are never shown again.

    Example: `skep token ls`
    """
    columns = [
        ("ID", lambda one: one.id),
        ("NAME", lambda one: one.name),
        ("USER", lambda one: one.user),
        ("CREATED", lambda one: age(one.created)),
        ("EXPIRES", lambda one: one.expires or "never"),
        ("LAST USED", lambda one: age(one.last_used)),
    ]
    show(common.connect().get("/v1/tokens", list[TokenView]), columns, common.output)


@app.command
def create(
    name: str, /, *, user: str | None = None, expires: str | None = None, common: Common = DEFAULT
) -> None:
    """Make a token and print its secret, once.

    Example: `skep token create ci --expires 30d`

    Parameters
    ----------
    name
        What it is for.
    user
        Whose it is; by default yours.
    expires
        For how long it is good, such as 12h or 30d; by default for ever.
    """
    body = {"name": name, "user": user, "expires_in": None if expires is None else parse_span(expires)}
    made = common.connect().post("/v1/tokens", TokenCreated, body)
    if common.output != "table":
        document(made, common.output)
        return
    say(f"Token {made.token.id} of {made.token.user}; the secret is shown only now:")
    print(made.secret)


@app.command
def revoke(token: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke a token: requests with it are refused from now on.

    Example: `skep token revoke 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    token
        Id of the token.
    """
    common.connect().act("DELETE", f"/v1/tokens/{token}")
    say(f"Revoked {token}.")

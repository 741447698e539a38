"""How machines become hosts: the part of `skep host` that makes and revokes join tokens."""

from typing import Annotated

from cyclopts import Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.output import age, document, parse_span, say, show
from skep.model.views.joining import AuthorityView, JoinTokenCreated, JoinTokenView


def add_host(
    name: str | None = None,
    /,
    *,
    zone: str,
    pool: str | None = None,
    expires: str = "1h",
    again: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Print the one command that makes a machine a host: run it there, as root. For admins.

    Example: `skep host add host-4 --zone zone-1`

    Parameters
    ----------
    name
        Name of the host; without one the machine's own.
    zone
        Zone it is in.
    pool
        Pool it belongs to; by default that of the zone.
    expires
        For how long the command is good, such as 30m or 1h.
    again
        The host is one already, and has lost what it proves itself with: its disk was replaced, or it was
        away for longer than its certificate lived.
    """
    body = {"host": name, "zone": zone, "pool": pool, "expires_in": parse_span(expires), "again": again}
    made = common.connect().post("/v1/hosts/join-tokens", JoinTokenCreated, body)
    if common.output != "table":
        document(made, common.output)
        return
    say(f"Run this as root on {name or 'the new host'}, until {made.token.expires}; it is good for one host:")
    trusted = (" --system-ca" if made.system_ca else "") + (" --force" if again else "")
    print(f"skep agent join {made.url} --token {made.secret} --ca {made.authority}{trusted}")


def list_join_tokens(*, common: Common = DEFAULT) -> None:
    """List the join tokens of the last 30 days. For admins.

    Example: `skep host tokens`
    """
    columns = [
        ("ID", lambda one: one.id),
        ("HOST", lambda one: one.host),
        ("ZONE", lambda one: one.zone),
        ("POOL", lambda one: one.pool),
        ("STATE", lambda one: one.state),
        ("BY", lambda one: one.created_by),
        ("CREATED", lambda one: age(one.created)),
        ("EXPIRES", lambda one: one.expires),
    ]
    show(common.connect().get("/v1/hosts/join-tokens", list[JoinTokenView]), columns, common.output)


def revoke_join_token(token: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke a join token. A host that has joined with it stays. For admins.

    Example: `skep host revoke 01jdabcdefghjkmnpqrs`

    Parameters
    ----------
    token
        Id of the token.
    """
    common.connect().act("DELETE", f"/v1/hosts/join-tokens/{token}")
    say(f"Revoked {token}.")


def show_authority(*, common: Common = DEFAULT) -> None:
    """Print the fingerprint of the installation's authority, for `skep login --ca`.

    Example: `skep host authority`
    """
    shown = common.connect().get("/v1/authority", AuthorityView)
    if common.output != "table":
        document(shown, common.output)
        return
    print(shown.fingerprint)

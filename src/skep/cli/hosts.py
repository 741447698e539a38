"""`skep host`, `skep zone` and `skep pool`."""

import time
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import complete_host
from skep.cli.output import age, document, parse_span, say, show, size
from skep.cli.values import labels_of
from skep.model.views.hosts import DrainView, HostDetail, HostView, PoolView, ZoneView
from skep.model.views.joining import AuthorityView, JoinTokenCreated, JoinTokenView

host_app = App(name="host", help="Hosts: list, add, cordon, drain, label, remove; tokens, authority.")
zone_app = App(name="zone", help="Zones: list, add, remove.")
pool_app = App(name="pool", help="Pools of hosts: list, add, change, remove.")

LOOK = 1.0
"""Seconds between two looks at a host that is being emptied."""

Host = Annotated[str, Parameter(completer=complete_host)]


@host_app.command(name="ls")
def list_hosts(*, common: Common = DEFAULT) -> None:
    """List the hosts with what they have. For admins.

    Example: `skep host ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("ZONE", lambda one: one.zone),
        ("POOL", lambda one: one.pool),
        ("STATE", lambda one: one.state),
        ("CPUS", lambda one: one.cpus),
        ("MEMORY", lambda one: size(one.memory)),
        ("REPLICAS", lambda one: one.replicas),
        ("DISK", lambda one: f"{size(one.pool_used)} of {size(one.pool_total)}"),
        ("LABELS", lambda one: ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))),
        ("SEEN", lambda one: age(one.seen) if one.seen else None),
    ]
    show(common.connect().get("/v1/hosts", list[HostView]), columns, common.output)


@host_app.command(name="show")
def show_host(host: Host, /, *, common: Common = DEFAULT) -> None:
    """Show a host with the replicas and disks that are on it. For admins.

    Example: `skep host show host-1`

    Parameters
    ----------
    host
        Name of the host.
    """
    found = common.connect().get(f"/v1/hosts/{host}", HostDetail)
    if common.output != "table":
        document(found, common.output)
        return
    one = found.host
    facts = [
        ("state", one.state),
        ("zone", f"{one.zone} in {one.region}, pool {one.pool}"),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items())) or "none"),
        ("cpus", f"{one.cpus}, promised up to {one.cpu_overcommit:g} times"),
        ("memory", f"{size(one.memory)}, promised up to {one.memory_overcommit:g} times"),
        ("disk", f"{size(one.pool_used)} of {size(one.pool_total)}"),
        ("kernel", f"{one.kernel}, cgroups {one.cgroups}"),
        ("skep", one.version or "unknown"),
        ("address", one.address or "none"),
        ("seen", age(one.seen) if one.seen else "never"),
        ("replicas", ", ".join(found.replicas) or "none"),
        ("data disks", ", ".join(found.disks) or "none"),
    ]
    for name, value in facts:
        print(f"{name:<11} {value}")
    for stays in found.staying:
        print(f"{stays.replica}: {stays.reason}")


@host_app.command
def cordon(host: Host, /, *, common: Common = DEFAULT) -> None:
    """Place nothing new on a host; what it runs goes on. For admins.

    Example: `skep host cordon host-1`

    Parameters
    ----------
    host
        Name of the host.
    """
    common.connect().post(f"/v1/hosts/{host}/cordon", HostView)
    say(f"Nothing new is placed on {host}.")


@host_app.command
def uncordon(host: Host, /, *, common: Common = DEFAULT) -> None:
    """Place replicas on a host again. For admins.

    Example: `skep host uncordon host-1`

    Parameters
    ----------
    host
        Name of the host.
    """
    common.connect().post(f"/v1/hosts/{host}/uncordon", HostView)
    say(f"Replicas are placed on {host} again.")


@host_app.command
def drain(
    host: Host, /, *, wait: Annotated[bool, Parameter(negative=())] = False, common: Common = DEFAULT
) -> None:
    """Cordon a host and move to others what has no data there, names and addresses kept. For admins.

    Replicas with data stay and are named. What cannot go yet goes when it can, until the host is uncordoned.

    Examples: `skep host drain host-1`; `skep host drain host-1 --wait`

    Parameters
    ----------
    host
        Name of the host.
    wait
        Show what is left until all has gone that goes by itself.
    """
    client = common.connect()
    found = client.post(f"/v1/hosts/{host}/drain", DrainView)
    if wait:
        _until_empty(client, host)
        return
    if common.output != "table":
        document(found, common.output)
        return
    for run in found.runs:
        say(f"Run {run} moves replicas; follow it with 'skep run follow {run}'.")
    for one in found.staying:
        print(f"{one.replica} stays: {one.reason}")
    if not found.runs and not found.staying:
        say(f"Nothing is on {host}.")


def _until_empty(client: Client, host: str) -> None:
    """Raises Failure: what is left does not go by itself."""
    told = ""
    while True:
        shown = client.get(f"/v1/hosts/{host}", HostDetail)
        waiting = [one for one in shown.staying if one.waits]
        if not waiting:
            break
        news = "\n".join(f"  {one.replica}: {one.reason}" for one in waiting)
        if news != told:
            say(f"{len(shown.replicas)} replicas are on {host}, {len(waiting)} of them leave:\n{news}")
            told = news
        time.sleep(LOOK)
    for one in shown.staying:
        print(f"{one.replica} stays: {one.reason}")
    if shown.replicas:
        raise Failure(f"{len(shown.replicas)} replicas stay on {host}.", Exit.CONFLICT)
    say(f"Nothing is on {host}.")


@host_app.command(name="label")
def label_host(host: Host, labels: tuple[str, ...], /, *, common: Common = DEFAULT) -> None:
    """Set labels of a host, which services choose hosts by; `NAME-` removes one. For admins.

    Example: `skep host label host-1 disk=ssd rack-`

    Parameters
    ----------
    host
        Name of the host.
    labels
        NAME=VALUE, or NAME- to remove it.
    """
    body = {"labels": labels_of(labels, removable=True)}
    common.connect().patch(f"/v1/hosts/{host}/labels", HostView, body)
    say(f"Labelled {host}.")


@host_app.command(name="rm")
def remove_host(host: Host, /, *, lost: bool = False, fenced: bool = False, common: Common = DEFAULT) -> None:
    """Take an empty host out of the installation. For admins.

    Examples: `skep host rm host-4`; `skep host rm host-4 --fenced`

    Parameters
    ----------
    host
        Name of the host.
    lost
        It does not answer and never comes back: remove it with what it ran, which stays unknown.
    fenced
        It is off or cut from the network for sure: make again elsewhere what has no data on it.
    """
    client = common.connect()
    client.act("DELETE", f"/v1/hosts/{host}", lost=lost or None, fenced=fenced or None)
    say(f"Removed {host}.")
    if fenced:
        _say_what_stays(client, host)


def _say_what_stays(client: Client, host: str) -> None:
    try:
        staying = client.get(f"/v1/hosts/{host}", HostDetail).staying
    except Failure as failure:
        if failure.exit is not Exit.NOT_FOUND:  # else nothing was on it
            raise
        return
    for one in staying:
        print(f"{one.replica}: {one.reason}")


@host_app.command(name="add")
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


@host_app.command(name="tokens")
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


@host_app.command(name="revoke")
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


@host_app.command(name="authority")
def show_authority(*, common: Common = DEFAULT) -> None:
    """Print the fingerprint of the installation's authority, for `skep login --ca`.

    Example: `skep host authority`
    """
    shown = common.connect().get("/v1/authority", AuthorityView)
    if common.output != "table":
        document(shown, common.output)
        return
    print(shown.fingerprint)


@zone_app.command(name="ls")
def list_zones(*, common: Common = DEFAULT) -> None:
    """List the zones. For admins.

    Example: `skep zone ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("REGION", lambda one: one.region),
        ("HOSTS", lambda one: one.hosts),
    ]
    show(common.connect().get("/v1/zones", list[ZoneView]), columns, common.output)


@zone_app.command(name="add")
def add_zone(zone: str, /, *, region: str, common: Common = DEFAULT) -> None:
    """Make a zone, with a pool of the same name. For admins.

    Example: `skep zone add zone-2 --region region-1`

    Parameters
    ----------
    zone
        Name of the zone.
    region
        Region it is in; made if need be.
    """
    common.connect().post("/v1/zones", ZoneView, {"name": zone, "region": region})
    say(f"Zone {zone} is there.")


@zone_app.command(name="rm")
def remove_zone(zone: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a zone without hosts, and its pools. For admins.

    Example: `skep zone rm zone-2`

    Parameters
    ----------
    zone
        Name of the zone.
    """
    common.connect().act("DELETE", f"/v1/zones/{zone}")
    say(f"Removed {zone}.")


@pool_app.command(name="ls")
def list_pools(*, common: Common = DEFAULT) -> None:
    """List the pools of hosts. For admins.

    Example: `skep pool ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("ZONE", lambda one: one.zone),
        ("HOSTS", lambda one: one.hosts),
        ("CPU", lambda one: f"{one.cpu_overcommit:g}"),
        ("MEMORY", lambda one: f"{one.memory_overcommit:g}"),
        ("TENANT", lambda one: one.tenant),
        ("LABELS", lambda one: ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))),
    ]
    show(common.connect().get("/v1/pools", list[PoolView]), columns, common.output)


@pool_app.command(name="add")
def add_pool(
    pool: str,
    /,
    *,
    zone: str,
    cpu_overcommit: float | None = None,
    memory_overcommit: float | None = None,
    tenant: str | None = None,
    label: tuple[str, ...] = (),
    common: Common = DEFAULT,
) -> None:
    """Make a pool; hosts join it with `skep host add --pool`. For admins.

    Example: `skep pool add gold --zone zone-1 --memory-overcommit 1 --tenant acme`

    Parameters
    ----------
    pool
        Name of the pool.
    zone
        Zone it is in.
    cpu_overcommit
        How many times its CPUs a host may promise.
    memory_overcommit
        How many times its memory a host may promise.
    tenant
        The only one who may use it.
    label
        NAME=VALUE, of all its hosts.
    """
    body = {
        "zone": zone,
        "cpu_overcommit": cpu_overcommit,
        "memory_overcommit": memory_overcommit,
        "tenant": tenant,
        "labels": labels_of(label) or None,
    }
    common.connect().put(f"/v1/pools/{pool}", PoolView, body)
    say(f"Pool {pool} is there.")


@pool_app.command(name="set")
def set_pool(
    pool: str,
    /,
    *,
    cpu_overcommit: float | None = None,
    memory_overcommit: float | None = None,
    tenant: str | None = None,
    everybody: bool = False,
    label: tuple[str, ...] = (),
    common: Common = DEFAULT,
) -> None:
    """Change a pool; what is not said stays, and so does what runs there. For admins.

    Example: `skep pool set gold --memory-overcommit 2 --everybody`

    Parameters
    ----------
    pool
        Name of the pool.
    cpu_overcommit
        How many times its CPUs a host may promise.
    memory_overcommit
        How many times its memory a host may promise.
    tenant
        The only one who may use it from now on.
    everybody
        All tenants may use it from now on.
    label
        NAME=VALUE, of all its hosts, in place of the labels it has.
    """
    body = {
        "cpu_overcommit": cpu_overcommit,
        "memory_overcommit": memory_overcommit,
        "tenant": "" if everybody else tenant,
        "labels": labels_of(label) or None,
    }
    common.connect().put(f"/v1/pools/{pool}", PoolView, body)
    say(f"Changed {pool}.")


@pool_app.command(name="rm")
def remove_pool(pool: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a pool without hosts. For admins.

    Example: `skep pool rm gold`

    Parameters
    ----------
    pool
        Name of the pool.
    """
    common.connect().act("DELETE", f"/v1/pools/{pool}")
    say(f"Removed {pool}.")

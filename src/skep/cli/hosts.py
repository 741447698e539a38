"""`skep host`."""

import time
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.joining import add_host, list_join_tokens, revoke_join_token, show_authority
from skep.cli.names import complete_host
from skep.cli.output import age, document, say, show, size
from skep.cli.values import labels_of
from skep.model.views.hosts import DrainView, HostDetail, HostView

host_app = App(name="host", help="Hosts: list, add, cordon, drain, label, remove; tokens, authority.")

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
        ("DISK", _room),
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
        ("disk", _room(one) or "-"),
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


def _room(one: HostView) -> str | None:
    """Of a cluster there is no total: it makes as many disks as are asked for."""
    if one.pool_total:
        return f"{size(one.pool_used)} of {size(one.pool_total)}"
    return size(one.pool_used) if one.pool_used else None


def _say_what_stays(client: Client, host: str) -> None:
    try:
        staying = client.get(f"/v1/hosts/{host}", HostDetail).staying
    except Failure as failure:
        if failure.exit is not Exit.NOT_FOUND:  # else nothing was on it
            raise
        return
    for one in staying:
        print(f"{one.replica}: {one.reason}")


host_app.command(add_host, name="add")
host_app.command(list_join_tokens, name="tokens")
host_app.command(revoke_join_token, name="revoke")
host_app.command(show_authority, name="authority")

"""`skep agent`: this machine as a host of an installation."""

import os
import subprocess
import sys
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from skep.cli.failures import Exit, Failure
from skep.cli.output import say
from skep.cli.processes import become
from skep.cli.settings import server_setting

app = App(name="agent", help="This machine as a host: run the agent, join.")

_FLAG = Parameter(negative=())


class _Host(msgspec.Struct):
    url: str
    host: str
    zone: str
    address: str


class _Outcome(msgspec.Struct):
    host: _Host
    again: bool


@app.default
def agent() -> int:
    """Run the agent of this machine, which has joined: its containers, networks and disks obey control.

    It stays in the foreground; when it ends, containers go on, and the next agent adopts them.

    Example: `skep agent`
    """
    return become("agent")


@app.command
def join(
    url: str,
    /,
    *,
    token: Annotated[str, Parameter(env_var="SKEP_JOIN_TOKEN")],
    ca: str,
    name: str = "",
    address: str = "",
    system_ca: Annotated[bool, _FLAG] = False,
    force: Annotated[bool, _FLAG] = False,
) -> int:
    """Make this machine a host of the installation. `skep host add` prints this command; it may be repeated.

    Example: `skep agent join https://10.0.0.1:7537 --token skepjoin_... --ca sha256:...`

    Parameters
    ----------
    url
        Address of the installation's API.
    token
        What `skep host add` gave for this machine.
    ca
        Fingerprint of the installation's authority: nothing is sent to anybody else.
    name
        Name of the host, where the token has none; by default the name of the machine.
    address
        Address of this machine on the network between hosts; by default `underlay` in skep.yaml, or
        else the one on the way to the API.
    system_ca
        The API's certificate is of an authority that this system trusts, not of the installation's own.
    force
        Join although this machine belongs to an installation.
    """
    if os.geteuid() != 0:
        raise Failure("This needs root.", Exit.AUTH, "Try it with sudo.")
    order = {
        "url": url,
        "token": token,
        "ca": ca,
        "name": name,
        "address": address or server_setting("underlay", ""),
        "port": int(server_setting("agent_port", "7538")),
        "system_ca": system_ca,
        "force": force,
    }
    done = subprocess.run(
        [sys.executable, "-m", "skep.agent.joining"],
        input=msgspec.json.encode(order),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failure(done.stderr.decode(errors="replace").strip(), Exit.FAILED)
    outcome = msgspec.json.decode(done.stdout, type=_Outcome)
    host = outcome.host
    if outcome.again:
        say(f"This machine is host {host.host} of {host.url} already; nothing was changed.")
    else:
        say(f"This machine is host {host.host} in zone {host.zone} of {host.url} now, at {host.address}.")
    return Exit.OK

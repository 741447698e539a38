"""`skep box`: the hosts of a data centre in a box, as things of this machine: cables, and plugs."""

import os
import subprocess
import sys

from cyclopts import App

from skep.cli.failures import Exit, Failure
from skep.cli.output import say

app = App(name="box", help="Hosts of a box (skep up --hosts N): list, cut off, kill, start.")


@app.command(name="ls")
def list_box() -> int:
    """List the hosts of the box as this machine knows them: address, cable, process of the agent.

    Example: `skep box ls`
    """
    return _control("ls")


@app.command
def cut(host: str, /) -> int:
    """Pull the cable of the host: it goes on, but nobody reaches it.

    Example: `skep box cut host-2`

    Parameters
    ----------
    host
        Name of the host.
    """
    return _control("cut", host, said=f"{host} is cut off; skep box mend {host} connects it again.")


@app.command
def mend(host: str, /) -> int:
    """Put the cable of the host back.

    Example: `skep box mend host-2`

    Parameters
    ----------
    host
        Name of the host.
    """
    return _control("mend", host, said=f"{host} is connected.")


@app.command
def kill(host: str, /) -> int:
    """Cut the power of the host: its agent and all its containers end at once. Its disks stay.

    Example: `skep box kill host-2`

    Parameters
    ----------
    host
        Name of the host.
    """
    return _control("kill", host, said=f"{host} is dead; skep box start {host} brings it back.")


@app.command
def start(host: str, /) -> int:
    """Switch the host on: connect it and start its agent, unless that runs.

    Example: `skep box start host-2`

    Parameters
    ----------
    host
        Name of the host.
    """
    return _control("start", host, said=f"{host} starts; skep host ls shows when it is ready.")


def _control(*words: str, said: str = "") -> int:
    """The server's own code does it, as for `skep down`: control need not be up."""
    if os.geteuid() != 0:
        raise Failure("This needs root.", Exit.AUTH, "Try it with sudo.")
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "skep.main", "box", *words], check=False)
    if done.returncode == 0 and said:
        say(said)
    return done.returncode

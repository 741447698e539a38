"""The `skep` command.

Commands are imported when they are used, so that the command starts quickly.  Every failure ends here, as a
message with what to do and an exit code (`failures.Exit`).
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skep import __version__
from skep.cli.failures import Exit, Failure

if TYPE_CHECKING:
    from cyclopts import App

_EPILOGUE = """\
Exit codes: 0 ok, 1 the work failed, 2 wrong usage or input, 3 not found, 4 not allowed, 5 conflict or full, \
6 the server does not answer, 130 interrupted. exec passes on the code of its command.

Where the server is: --url, SKEP_URL, skep login, or this machine. Example: skep up && skep apply
"""

_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Apps": {
        "apply": ("skep.cli.apply:apply", "Make the app as its Compose file says."),
        "plan": ("skep.cli.apply:plan", "Show what apply would change."),
        "config": ("skep.cli.apply:config", "Print what the Compose file comes to."),
        "build": ("skep.cli.apply:build", "Build the images of the Compose file."),
        "apps": ("skep.cli.apps:apps", "List the apps."),
        "show": ("skep.cli.apps:show_app", "Show one app."),
        "ps": ("skep.cli.apps:ps", "List the replicas."),
        "logs": ("skep.cli.logs:logs", "Show what replicas wrote."),
        "exec": ("skep.cli.exec:execute", "Run a command in a replica."),
        "stats": ("skep.cli.apps:stats", "Show what replicas use."),
        "stop": ("skep.cli.apps:stop", "Stop an app or a service."),
        "start": ("skep.cli.apps:start", "Start what was stopped."),
        "restart": ("skep.cli.apps:restart", "Stop and start."),
        "rollout": (
            "skep.cli.rollouts:app",
            "A release that comes into force: status, watch, pause, resume, abort.",
        ),
        "app": ("skep.cli.moves:app", "An app as a whole: move."),
        "scale": ("skep.cli.scaling:scale", "Change how many replicas services have."),
        "rm": ("skep.cli.apps:rm", "Remove an app."),
        "releases": ("skep.cli.releases:app", "Revisions of an app: list, show."),
        "diff": ("skep.cli.releases:diff", "Show how two revisions differ."),
        "rollback": ("skep.cli.releases:rollback", "Go back to an older revision."),
    },
    "Resources": {
        "image": ("skep.cli.images:app", "Images: list, pull, import, build, save, remove."),
        "disk": ("skep.cli.disks:app", "Disks: list, resize, remove."),
        "net": ("skep.cli.networks:app", "Networks: list, ports, remove."),
        "endpoint": ("skep.cli.endpoints:app", "HTTP(S) endpoints: list, show, who asked for what."),
        "cert": ("skep.cli.endpoints:certificate_app", "Certificates for endpoints: list, add, remove."),
        "run": ("skep.cli.runs:app", "Runs: list, show, why, steer, approve, draw."),
        "events": ("skep.cli.runs:events", "Follow what changes."),
    },
    "Flows": {
        "flow": ("skep.cli.flows:app", "Flows: list, check, show, draw, start."),
        "bundle": ("skep.cli.bundles:app", "Bundles: push flows and plug-in code, activate, roll back."),
        "schedule": ("skep.cli.schedules:app", "Schedules: flows that start by the clock."),
        "limit": ("skep.cli.limits:app", "Limits of flows, steps, hosts and tenants."),
    },
    "Administration": {
        "host": (
            "skep.cli.hosts:host_app",
            "Hosts: list, add, cordon, drain, label, remove.",
        ),
        "zone": ("skep.cli.zones:zone_app", "Zones: list, show, add, set, remove."),
        "pool": ("skep.cli.pools:pool_app", "Pools of hosts: list, add, change, remove."),
        "cluster": ("skep.cli.clusters:app", "Kubernetes clusters: check, rights."),
        "bus": ("skep.cli.queues:app", "The bus: queues, dead letters."),
        "tenant": ("skep.cli.tenants:app", "Tenants: list, create, remove."),
        "user": ("skep.cli.users:app", "Users: list, create, remove."),
        "token": ("skep.cli.tokens:app", "Tokens: list, create, revoke."),
        "login": ("skep.cli.login:login", "Remember a server and a token."),
        "whoami": ("skep.cli.login:whoami", "Show who you are."),
    },
    "This machine": {
        "up": ("skep.cli.server:up", "Start the server."),
        "box": ("skep.cli.box:app", "Hosts of a box: list, cut off, kill, start."),
        "agent": ("skep.cli.agent:app", "This machine as a host: run the agent, join."),
        "serve": ("skep.cli.processes:serve", "Serve the API of an installation on many machines."),
        "worker": ("skep.cli.processes:worker", "Carry out runs of an installation on many machines."),
        "migrate": ("skep.cli.processes:migrate", "Bring the database to this version's schema."),
        "down": ("skep.cli.server:down", "Stop the server and its containers; data stays."),
        "status": ("skep.cli.server:status", "Show whether the server is up."),
        "purge": ("skep.cli.server:purge", "Remove everything of skep from this machine."),
        "completion": ("skep.cli.completion:completion", "Print a completion script."),
        "version": ("skep.cli.login:version", "Show the versions of command and server."),
    },
}

_EXEC_VALUES = frozenset(
    ["-e", "--env", "-w", "--workdir", "-u", "--user", "-o", "--output", "--url", "--token", "--tenant"]
)
"""Options of `exec` that take a value."""


def build(*, listing: bool = False) -> "App":
    """The command with all its sub-commands; a `listing` of them imports neither them nor Markdown."""
    from cyclopts import App, Group, Parameter

    root = App(
        name="skep",
        help="Run Compose files in a container cloud.",
        help_epilogue=_EPILOGUE if listing else None,
        help_format="plaintext" if listing else "markdown",
        version=__version__,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        default_parameter=Parameter(negative_iterable=()),
    )
    for order, (title, commands) in enumerate(_GROUPS.items()):
        group = Group(title, sort_key=order)
        for name, (path, summary) in commands.items():
            root.command(path, name=name, help=summary if listing else None, group=group)
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run the command and exit."""
    # Most of what a command makes is what it imports, which stays: to look through that for garbage again and
    # again, and once more at the end, is a sixth of the time that a command takes.
    gc.set_threshold(100_000)
    code = run(sys.argv[1:] if arguments is None else list(arguments))
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; answers its exit code."""
    if list(arguments) in (["--version"], ["-V"]):
        print(__version__)
        return Exit.OK
    from cyclopts import CycloptsError

    from skep.cli.output import complain

    try:
        listing = list(arguments) in ([], ["--help"], ["-h"])
        code = build(listing=listing)(leave_to_command(arguments), exit_on_error=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except Failure as failure:
        complain(failure.message, failure.hint)
        return failure.exit
    except CycloptsError:  # printed by cyclopts
        return Exit.INVALID
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # the reader has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def leave_to_command(arguments: Sequence[str]) -> list[str]:
    """In `exec`, what follows the replica belongs to the command there, as with `docker exec`."""
    given = list(arguments)
    if given[:1] != ["exec"] or "--" in given:
        return given
    place = 1
    while place < len(given) and given[place].startswith("-"):
        place += 2 if given[place] in _EXEC_VALUES else 1
    return [*given[: place + 1], "--", *given[place + 1 :]] if place + 1 < len(given) else given


if __name__ == "__main__":
    main()

"""A real Kubernetes on this machine, for tests and for trying things out.  See docs/test-cluster.md."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cluster.kubernetes import build, layout, wires
from tests.cluster.kubernetes.cluster import Cluster, planned
from tests.cluster.kubernetes.layout import DEFAULT_NAME, NUMBERS, Layout
from tests.cluster.kubernetes.progress import Failed, say

_DOWN = 3
"""What `status` ends with if there is no cluster, as init scripts do."""


def main() -> int:
    command = _command(sys.argv[1:])
    if os.geteuid() != 0:
        sys.exit("error: a test cluster is namespaces, mounts and control groups: run it as root.")
    try:
        return int(command() or 0)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _command(words: list[str]) -> Callable[[], int | None]:
    """What they ask for.  The words of kubectl are its own."""
    if words[:1] == ["kubectl"]:
        return partial(_kubectl, *kubectl_words(words[1:]))
    arguments = _parser().parse_args(words)
    return partial(arguments.command, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/kubernetes", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words)
        made.set_defaults(command=function)
        made.add_argument("--name", type=_name, default=DEFAULT_NAME, help="of the cluster (%(default)s)")
        return made

    up = command("up", _up, "make it if it is absent, start of it what does not run, print its kubeconfig")
    up.add_argument("--nodes", type=int, choices=range(1, 100), metavar="1-99", help="how many (2)")
    up.add_argument(
        "--number", type=int, choices=NUMBERS, metavar="0-63", help="in its addresses (a free one)"
    )
    up.add_argument(
        "--registry", action="append", default=[], help="HOST:PORT that nodes pull from without TLS"
    )
    command("down", _down, "stop it and remove everything of it")
    command("status", _status, f"say what runs; ends with {_DOWN} if there is none")
    command("build", _build, "only build the programs of Kubernetes, if they are not there")
    load = command("load", _load, "put the images of an OCI archive on every node")
    load.add_argument("archive", type=Path)
    commands.add_parser("kubectl", help="[--name N] WORDS: become kubectl of the cluster's version")
    hollow = command("hollow", _hollow, "start nodes that only say they run containers; 0 stops them")
    hollow.add_argument("count", type=int)
    return parser


def _name(text: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9]{0,15}", text):
        raise argparse.ArgumentTypeError("at most 16 small letters and digits, a letter first")
    return text


def _up(arguments: argparse.Namespace) -> None:
    wanted = {"number": arguments.number, "registries": arguments.registry}
    plan = planned(arguments.name, nodes=arguments.nodes or 2, **wanted)
    for what in ("nodes", "number"):
        if getattr(arguments, what) not in (None, getattr(plan, what)):
            has = getattr(plan, what)
            raise Failed(f"Cluster {plan.name!r} is there with other {what}: {has}. Take it down first.")
    cluster = Cluster(plan)
    cluster.up()
    for registry in arguments.registry:
        cluster.trust(registry)
    say(f"cluster {plan.name!r} is up: {plan.nodes} nodes, API server {plan.api}")
    print(cluster.kubeconfig)


def _down(arguments: argparse.Namespace) -> None:
    # Without a record there may still be rests: all names follow from the cluster's.
    Cluster(layout.saved(arguments.name) or Layout(arguments.name, wires.free_number())).down()
    say(f"nothing of cluster {arguments.name!r} is left")


def _status(arguments: argparse.Namespace) -> int:
    found = layout.saved(arguments.name)
    if found is None:
        say(f"there is no cluster {arguments.name!r}")
        return _DOWN
    cluster = Cluster(found)
    for machine in cluster.machines:
        state = {name: machine.running(name) for name in cluster.commands(machine)}
        programs = ", ".join(f"{name} {'runs' if runs else 'is down'}" for name, runs in state.items())
        print(f"{machine.name:10} {machine.address!s:14} {'on ' if machine.init else 'off'}  {programs}")
    print(f"ready:     {', '.join(sorted(cluster.ready())) or 'no node'}")
    print(f"KUBECONFIG={cluster.kubeconfig}")
    return 0


def _build(_: argparse.Namespace) -> None:
    print(build.programs())


def _load(arguments: argparse.Namespace) -> None:
    existing(arguments.name).load(arguments.archive)


def kubectl_words(words: list[str]) -> tuple[str | None, list[str]]:
    """The cluster that a leading `--name` says, if one does; the rest is kubectl's, options first or not."""
    match words:
        case ["--name", name, *rest]:
            return name, rest
        case [first, *rest] if first.startswith("--name="):
            return first.removeprefix("--name="), rest
        case _:
            return None, words


def _kubectl(name: str | None, words: list[str]) -> None:
    """To the cluster of that name, else where KUBECONFIG says, else to the usual one."""
    program = str(build.programs() / "kubectl")
    environment = dict(os.environ)
    if name is not None or not environment.get("KUBECONFIG"):
        environment["KUBECONFIG"] = str(existing(name or DEFAULT_NAME).kubeconfig)
    os.execve(program, [program, *words], environment)


def _hollow(arguments: argparse.Namespace) -> None:
    cluster = existing(arguments.name)
    if arguments.count:
        cluster.start_hollow(arguments.count)
    else:
        cluster.stop_hollow()


def existing(name: str) -> Cluster:
    """The cluster of that name.  Raises Failed: there is none."""
    found = layout.saved(name)
    if found is None:
        raise Failed(f"There is no cluster {name!r}; make it: scripts/kubernetes up --name {name}")
    return Cluster(found)


if __name__ == "__main__":
    sys.exit(main())

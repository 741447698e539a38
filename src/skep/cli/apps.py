"""Apps and replicas: list, show, stop, start, restart, remove."""

from typing import Annotated

from cyclopts import Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.follow import finish
from skep.cli.names import complete_app, complete_service, split
from skep.cli.output import age, confirm, say, show, show_one, size, warn
from skep.model.views.apps import AppDetail, AppView, ReplicaView, UsageView
from skep.model.views.base import Accepted

AppArgument = Annotated[str, Parameter(completer=complete_app)]
ServiceArgument = Annotated[str, Parameter(completer=complete_service)]

_RESTING = ("exited", "stopped")


def apps(*, common: Common = DEFAULT) -> None:
    """List the apps of the tenant.

    Example: `skep apps -o json`
    """
    columns = [
        ("NAME", lambda app: app.name),
        ("STATE", lambda app: app.state.value),
        ("RUNNING", lambda app: f"{app.running}/{app.replicas - app.finished}"),
        ("REVISION", lambda app: app.revision or "-"),
        ("URLS", lambda app: app.urls),
        ("UPDATED", lambda app: age(app.updated)),
    ]
    show(common.connect().get("/v1/apps", list[AppView]), columns, common.output)


def show_app(app: AppArgument, /, *, common: Common = DEFAULT) -> None:
    """Show one app: its state, its services, its replicas.

    Example: `skep show shop`

    Parameters
    ----------
    app
        Name of the app.
    """
    detail = common.connect().get(f"/v1/apps/{app}", AppDetail)
    fields = [
        ("Name", lambda one: one.app.name),
        ("State", lambda one: one.app.state.value),
        ("Revision", lambda one: one.app.revision or "none in force yet"),
        ("Services", lambda one: one.app.services),
        ("Replicas", lambda one: tally(one.app, "running")),
        ("Virtual IPs", lambda one: tuple(f"{name} {', '.join(at)}" for name, at in one.virtual_ips.items())),
        ("URLs", lambda one: one.app.urls),
        ("Created", lambda one: age(one.app.created) + " ago"),
        ("Updated", lambda one: age(one.app.updated) + " ago"),
    ]
    if detail.app.left_in:
        fields.insert(5, ("Moved", lambda one: moved(one.app)))
    show_one(detail, fields, common.output)
    if common.output == "table" and detail.replicas:
        print()
        _show_replicas(list(detail.replicas), "table")


def ps(
    app: Annotated[str | None, Parameter(completer=complete_app)] = None,
    /,
    *,
    all: Annotated[bool, Parameter(name=["--all", "-a"], negative=())] = False,  # noqa: A002 - the option
    common: Common = DEFAULT,
) -> None:
    """List the replicas, of all apps or of one.

    Examples: `skep ps`; `skep ps shop --all`

    Parameters
    ----------
    app
        Name of the app.
    all
        Also those that have stopped and are meant to.
    """
    replicas = common.connect().get("/v1/replicas", list[ReplicaView], app=app)
    _show_replicas([one for one in replicas if all or not _at_rest(one)], common.output)
    if common.output == "table":
        for found in common.connect().get("/v1/apps", list[AppView]):
            if found.left_in and app in (None, found.name):
                say(f"{found.name} has moved: {moved(found)}")


def stats(
    app: Annotated[str | None, Parameter(completer=complete_app)] = None, /, *, common: Common = DEFAULT
) -> None:
    """Show what the running replicas use now.

    Example: `skep stats shop`

    Parameters
    ----------
    app
        Name of the app.
    """
    columns = [
        ("REPLICA", lambda one: one.replica),
        ("CPU", lambda one: None if one.unmeasured else f"{one.cpu_seconds:.1f}s"),
        ("MEMORY", lambda one: None if one.unmeasured else size(one.memory)),
        ("LIMIT", lambda one: size(one.memory_limit)),
        ("PROCESSES", lambda one: None if one.unmeasured else one.pids),
        ("DISK", lambda one: None if one.unmeasured else f"{size(one.disk)} of {size(one.disk_size)}"),
    ]
    found = common.connect().get("/v1/usage", list[UsageView], app=app)
    show(found, columns, common.output)
    for said in sorted({one.unmeasured for one in found if one.unmeasured}):
        warn(said)


def stop(target: ServiceArgument, /, *, wait: bool = True, common: Common = DEFAULT) -> None:
    """Stop an app or one of its services. Disks, addresses and ports stay.

    Examples: `skep stop shop`; `skep stop shop/web`

    Parameters
    ----------
    target
        APP or APP/SERVICE.
    wait
        Follow the work to its end.
    """
    _change(common, target, "stop", wait)


def start(target: ServiceArgument, /, *, wait: bool = True, common: Common = DEFAULT) -> None:
    """Start an app or a service that was stopped.

    Example: `skep start shop`

    Parameters
    ----------
    target
        APP or APP/SERVICE.
    wait
        Follow the work to its end.
    """
    _change(common, target, "start", wait)


def restart(target: ServiceArgument, /, *, wait: bool = True, common: Common = DEFAULT) -> None:
    """Stop and start an app or one of its services.

    Example: `skep restart shop/web`

    Parameters
    ----------
    target
        APP or APP/SERVICE.
    wait
        Follow the work to its end.
    """
    _change(common, target, "restart", wait)


def rm(
    app: AppArgument,
    /,
    *,
    volumes: Annotated[bool, Parameter(name=["--volumes", "-v"], negative=())] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    wait: bool = True,
    common: Common = DEFAULT,
) -> None:
    """Remove an app. Its data disks stay unless --volumes is given.

    Examples: `skep rm shop`; `skep rm shop --volumes --yes`

    Parameters
    ----------
    app
        Name of the app.
    volumes
        Delete its data disks too.
    yes
        Do not ask.
    wait
        Follow the work to its end.
    """
    if volumes:
        confirm(f"Remove {app} with all its data?", yes)
    client = common.connect()
    finish(client, client.delete(f"/v1/apps/{app}", Accepted, volumes=volumes), wait=wait)


def _change(common: Common, target: str, verb: str, wait: bool) -> None:
    app, service = split(target)
    client = common.connect()
    finish(client, client.post(f"/v1/apps/{app}/{verb}", Accepted, service=service), wait=wait)


def _show_replicas(replicas: list[ReplicaView], output: str) -> None:
    columns = [
        ("REPLICA", lambda one: f"{one.app}/{one.name}"),
        ("STATE", state),
        ("HEALTH", lambda one: "" if one.health == "none" else one.health),
        ("ADDRESS", lambda one: one.addresses),
        ("VIRTUAL IP", lambda one: one.virtual_ips),
        ("PORTS", lambda one: one.ports),
        ("HOST", lambda one: one.host),
        ("IMAGE", lambda one: one.image),
        ("RESTARTS", lambda one: one.restarts),
        ("STARTED", lambda one: age(one.started)),
    ]
    show(replicas, columns, output)


def moved(app: AppView) -> str:
    """What is to be decided after a move."""
    if not app.left_in:
        return ""
    return (
        f"its disks are still in {', '.join(app.left_in)}, too: skep app move {app.name} --confirm, or --back"
    )


def tally(app: AppView, run: str) -> str:
    """How many replicas run of those that should, and how many need not any more: their one job is done."""
    done = f", {app.finished} {'has' if app.finished == 1 else 'have'} finished" if app.finished else ""
    return f"{app.running} of {app.replicas - app.finished} {run}{done}"


def state(replica: ReplicaView) -> str:
    """The state with what explains it: `exited (137, out of memory)`."""
    if replica.state not in ("exited", "restarting") or replica.exit_code is None:
        return f"{replica.state} ({replica.error})" if replica.error else replica.state
    reasons = [str(replica.exit_code)]
    reasons += ["out of memory"] if replica.oom_killed else []
    reasons += [replica.error] if replica.error else []
    return f"{replica.state} ({', '.join(reasons)})"


def _at_rest(replica: ReplicaView) -> bool:
    """It does not run, and nothing is wrong with that."""
    return replica.state in _RESTING and (replica.desired != "running" or replica.exit_code == 0)

"""`skep logs`."""

import sys
from typing import Annotated

from cyclopts import Parameter

from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import complete_service, split
from skep.cli.output import colourful
from skep.model.views.apps import LogView, ReplicaView

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


def logs(
    target: Annotated[str, Parameter(completer=complete_service)],
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative=())] = False,
    tail: Annotated[int | None, Parameter(name=["--tail", "-n"])] = None,
    since: str | None = None,
    timestamps: Annotated[bool, Parameter(name=["--timestamps", "-t"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Show what replicas wrote: of an app, of a service, or of one replica.

    Examples: `skep logs -f shop/web`; `skep logs --tail 20 --since 10m shop/db-0`

    Parameters
    ----------
    target
        APP, APP/SERVICE or APP/REPLICA.
    follow
        Go on with what is written from now on.
    tail
        Only the last lines of each replica.
    since
        Only what is newer: a time in RFC 3339, or an age such as 30s, 10m, 2h, 1d.
    timestamps
        Show when each line was written.
    """
    client = common.connect()
    path, many = _path(client, target)
    query: dict[str, object] = {"tail": tail, "since": _since(since), "follow": follow}
    service = split(target)[1] if path.count("/") == 4 else None
    query |= {"service": service}
    lines = client.stream(path, LogView, **query) if follow else client.lines(path, LogView, **query)
    width = 0
    for line in lines:
        width = max(width, len(line.replica))
        _print(line, width if many else 0, timestamps, common.output)


def _path(client: Client, target: str) -> tuple[str, bool]:
    """Where the log is, and whether several replicas write to it; a replica's name goes first."""
    app, name = split(target)
    if name is None:
        return f"/v1/apps/{app}/logs", True
    replicas = client.get("/v1/replicas", list[ReplicaView], app=app)
    if any(replica.name == name for replica in replicas):
        return f"/v1/apps/{app}/replicas/{name}/logs", False
    if any(replica.service == name for replica in replicas):
        return f"/v1/apps/{app}/logs", True
    names = ", ".join(sorted(replica.name for replica in replicas)) or "none"
    raise Failure(
        f"App {app!r} has no replica or service {name!r}.", Exit.NOT_FOUND, f"Its replicas: {names}"
    )


def _since(given: str | None) -> str | None:
    """RFC 3339 from a time or an age."""
    if given is None:
        return None
    import re
    from datetime import UTC, datetime, timedelta

    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    ages = re.fullmatch(r"(\d{1,6})([smhd])", given)
    if ages:
        return (datetime.now(UTC) - timedelta(**{units[ages[2]]: int(ages[1])})).isoformat()
    try:
        time = datetime.fromisoformat(given)
    except ValueError as error:
        raise Failure(
            f"{given!r} is neither a time nor an age.", Exit.INVALID, "Write 10m or 2026-01-31T12:00:00Z."
        ) from error
    return (time if time.tzinfo else time.astimezone()).isoformat()


def _print(line: LogView, width: int, timestamps: bool, output: str) -> None:
    if output != "table":
        import msgspec

        print(msgspec.json.encode(line).decode(), flush=True)
        return
    prefix = ""
    if width:
        prefix = f"{line.replica:<{width}} | "
        if colourful():
            prefix = f"\x1b[{_COLOURS[sum(line.replica.encode()) % len(_COLOURS)]}m{prefix}\x1b[0m"
    time = f"{line.time} " if timestamps else ""
    stream = sys.stderr if line.stream == "stderr" and not width else sys.stdout
    print(f"{prefix}{time}{line.text}", file=stream, flush=True)

"""Names on the command line: `shop`, `shop/web`, `shop/web-0`; and their completion."""

from typing import Annotated, Any

from cyclopts import Parameter

from skep.cli.failures import Exit, Failure


def split(target: str) -> tuple[str, str | None]:
    """App and service or replica.

    Raises:
        Failure: more than one slash, or an empty part.
    """
    app, slash, rest = target.partition("/")
    if not app or (slash and not rest) or "/" in rest:
        raise Failure(f"{target!r} is not APP or APP/NAME.", Exit.INVALID)
    return app, rest or None


def complete_app(_: Any) -> list[str]:
    """Candidates for an app; silence when the server does not answer."""
    return quietly(lambda client: [app.name for app in _apps(client)])


def complete_service(_: Any) -> list[str]:
    """Candidates for an app or one of its services."""
    return quietly(
        lambda client: [
            name
            for app in _apps(client)
            for name in (app.name, *(f"{app.name}/{service}" for service in app.services))
        ]
    )


def complete_replica(_: Any) -> list[str]:
    """Candidates for a replica."""
    from skep.model.views.apps import ReplicaView

    return quietly(
        lambda client: [f"{one.app}/{one.name}" for one in client.get("/v1/replicas", list[ReplicaView])]
    )


def complete_run(_: Any) -> list[str]:
    """Candidates for a run: the newest."""
    from skep.model.views.runs import RunView

    return quietly(lambda client: [run.id for run in client.get("/v1/runs", list[RunView])])


def complete_flow(_: Any) -> list[str]:
    """Candidates for a flow."""
    from skep.model.views.flows import FlowView

    return quietly(lambda client: [flow.name for flow in client.get("/v1/flows", list[FlowView])])


def complete_bundle(_: Any) -> list[str]:
    """Candidates for a bundle: names, and the beginnings of hashes."""
    from skep.model.views.bundles import BundleView

    def ask(client: Any) -> list[str]:
        found = client.get("/v1/bundles", list[BundleView])
        return [*dict.fromkeys(one.name for one in found), *(one.hash[:12] for one in found)]

    return quietly(ask)


def complete_schedule(_: Any) -> list[str]:
    """Candidates for a schedule."""
    from skep.model.views.schedules import ScheduleView

    return quietly(lambda client: [one.name for one in client.get("/v1/schedules", list[ScheduleView])])


def complete_limit(_: Any) -> list[str]:
    """Candidates for the key of a limit."""
    from skep.model.views.limits import LimitView

    return quietly(lambda client: [one.key for one in client.get("/v1/limits", list[LimitView])])


def complete_group(_: Any) -> list[str]:
    """Candidates for the name of a security group."""
    from skep.model.views.security_groups import SecurityGroupView

    return quietly(
        lambda client: [one.name for one in client.get("/v1/security-groups", list[SecurityGroupView])]
    )


def complete_host(_: Any) -> list[str]:
    """Candidates for the name of a host."""
    from skep.model.views.hosts import HostView

    return quietly(lambda client: [one.name for one in client.get("/v1/hosts", list[HostView])])


Run = Annotated[str, Parameter(completer=complete_run)]


def _apps(client: Any) -> Any:
    from skep.model.views.apps import AppView

    return client.get("/v1/apps", list[AppView])


def quietly(ask: Any) -> list[str]:
    from skep.cli.common import Common

    try:
        import os

        chosen = Common(url=os.environ.get("SKEP_URL"), token=os.environ.get("SKEP_TOKEN"))
        return list(ask(chosen.connect()))
    except Exception:
        return []

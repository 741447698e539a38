"""`skep zone`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.clusters import flat, show_check
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.images import ask_password
from skep.cli.output import document, say, show
from skep.model.views.clusters import ClusterZoneView
from skep.model.views.hosts import ZoneView

zone_app = App(name="zone", help="Zones: list, show, add, set, remove.")

Username = Annotated[str | None, Parameter(name=["--username", "-u"])]
PasswordStdin = Annotated[bool, Parameter(negative=())]


@zone_app.command(name="ls")
def list_zones(*, common: Common = DEFAULT) -> None:
    """List the zones. For admins.

    Example: `skep zone ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("REGION", lambda one: one.region),
        ("ENGINE", lambda one: one.engine),
        ("HOSTS", lambda one: one.hosts),
    ]
    show(common.connect().get("/v1/zones", list[ZoneView]), columns, common.output)


@zone_app.command(name="show")
def show_zone(zone: str, /, *, common: Common = DEFAULT) -> None:
    """Show a zone that stands on a Kubernetes cluster, and what works there now. For admins.

    Example: `skep zone show k8s`

    Parameters
    ----------
    zone
        Name of the zone.
    """
    found = common.connect().get(f"/v1/zones/{zone}/cluster", ClusterZoneView)
    if common.output != "table":
        document(found, common.output)
        return
    facts = [
        ("region", found.region),
        ("state", found.state),
        ("cluster", found.server + (f", context {found.context}" if found.context else "")),
        ("version", found.check.version if found.check else "unknown: it does not answer"),
        ("registry", found.registry),
        ("host", found.host),
    ]
    for name, value in facts:
        print(f"{name:<9} {value}")
    if found.check is not None:
        show_check(found.check)


@zone_app.command(name="add")
def add_zone(
    zone: str,
    /,
    *,
    region: str | None = None,
    kubeconfig: Path | None = None,
    context: str | None = None,
    registry: str | None = None,
    username: Username = None,
    password_stdin: PasswordStdin = False,
    common: Common = DEFAULT,
) -> None:
    """Make a zone, with a pool of the same name; with a kubeconfig it stands on that Kubernetes cluster.

    Such a cluster is looked at first, as by `skep cluster check`, and what works there is shown.  What it is
    reached with is kept sealed.  Images for it are pushed to the registry.  For admins.

    Examples: `skep zone add zone-2 --region region-1`;
    `skep zone add k8s --kubeconfig k8s.yaml --registry registry.example.com/skep --username ann`

    Parameters
    ----------
    zone
        Name of the zone.
    region
        Region it is in, made if need be; for a cluster by default the only one there is.
    kubeconfig
        File that says where the cluster is, and who skep is there.
    context
        Which of its contexts; by default the current one.
    registry
        Place for images in a registry that the cluster's nodes pull from, as HOST[:PORT]/PREFIX.
    username
        User at the registry; the password is asked for.
    password_stdin
        Read the password from stdin.
    """
    client = common.connect()
    if kubeconfig is None:
        if region is None:
            raise Failure(
                "Name the zone's region with --region, or its cluster with --kubeconfig.", Exit.INVALID
            )
        if context or registry or username:
            raise Failure(
                "--context, --registry and --username are for zones with a --kubeconfig.", Exit.INVALID
            )
        client.post("/v1/zones", ZoneView, {"name": zone, "region": region})
        say(f"Zone {zone} is there.")
        return
    if registry is None:
        raise Failure(
            "Nodes of a cluster pull images from a registry: name a place there with --registry, such as "
            "registry.example.com/skep.",
            Exit.INVALID,
        )
    body: dict[str, object] = {"kubeconfig": flat(kubeconfig), "context": context, "registry": registry}
    body |= {"region": region} | _login(username, password_stdin)
    made = client.post(f"/v1/zones/{zone}/cluster", ClusterZoneView, body)
    _show_made(made, common)
    say(f"Zone {zone} is there: services run in it that name it, as with 'skep apply --zone {zone}'.")


@zone_app.command(name="set")
def set_zone(
    zone: str,
    /,
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    registry: str | None = None,
    username: Username = None,
    password_stdin: PasswordStdin = False,
    common: Common = DEFAULT,
) -> None:
    """Reach a zone's cluster or registry otherwise: a token has expired, an address changed. For admins.

    What runs goes on.  It must be the same cluster while something is in the zone.

    Example: `skep zone set k8s --kubeconfig k8s.yaml`

    Parameters
    ----------
    zone
        Name of the zone.
    kubeconfig
        File that says where the cluster is, and who skep is there.
    context
        Which of its contexts; by default the current one.
    registry
        Place for images in a registry that the cluster's nodes pull from, as HOST[:PORT]/PREFIX.
    username
        User at the registry; the password is asked for.
    password_stdin
        Read the password from stdin.
    """
    body: dict[str, object] = {"context": context, "registry": registry}
    body |= {"kubeconfig": flat(kubeconfig) if kubeconfig else None} | _login(username, password_stdin)
    changed = common.connect().patch(f"/v1/zones/{zone}/cluster", ClusterZoneView, body)
    _show_made(changed, common)
    say(f"Zone {zone} is reached so from now on.")


@zone_app.command(name="rm")
def remove_zone(
    zone: str, /, *, lost: Annotated[bool, Parameter(negative=())] = False, common: Common = DEFAULT
) -> None:
    """Remove a zone without hosts, or one on a cluster with nothing in it, and its pools. For admins.

    In the cluster only what skep has made is deleted.

    Example: `skep zone rm zone-2`

    Parameters
    ----------
    zone
        Name of the zone.
    lost
        Its cluster is gone for good: nothing can be deleted there.
    """
    common.connect().act("DELETE", f"/v1/zones/{zone}", lost=lost)
    say(f"Removed {zone}.")


def _login(username: str | None, password_stdin: bool) -> dict[str, object]:
    if username is None:
        return {}
    return {"username": username, "password": ask_password(password_stdin)}


def _show_made(made: ClusterZoneView, common: Common) -> None:
    if common.output != "table":
        document(made, common.output)
    elif made.check is not None:
        show_check(made.check)

"""`skep zone`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.clusters import flat, show_check
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.images import ask_password
from skep.cli.output import confirm, document, say, show
from skep.model.views.clusters import ClusterZoneView
from skep.model.views.hosts import ZoneView

zone_app = App(name="zone", help="Zones: list, show, add, set, remove.")


@Parameter(name="*")
@dataclass(frozen=True)
class Way:
    """How a zone's cluster and its registry are reached."""

    kubeconfig: Path | None = None
    """File that says where the cluster is, and who skep is there."""
    context: str | None = None
    """Which of its contexts; by default the current one."""
    registry: str | None = None
    """Place for images in a registry that the cluster's nodes pull from, as HOST[:PORT]/PREFIX."""
    username: Annotated[str | None, Parameter(name=["--username", "-u"])] = None
    """User at the registry; the password is asked for."""
    password_stdin: Annotated[bool, Parameter(negative=())] = False
    """Read the password from stdin."""

    def body(self) -> dict[str, object]:
        """As the API takes it; asks for the password."""
        found: dict[str, object] = {"context": self.context, "registry": self.registry}
        found["kubeconfig"] = flat(self.kubeconfig) if self.kubeconfig else None
        if self.username is not None:
            found |= {"username": self.username, "password": ask_password(self.password_stdin)}
        return found


_UNSAID = Way()


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
        ("version", found.check.version if found.check else f"unknown: {found.trouble}"),
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
    way: Way = _UNSAID,
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
    """
    client = common.connect()
    if way.kubeconfig is None:
        _must_be_of_hosts(region, way)
        client.post("/v1/zones", ZoneView, {"name": zone, "region": region})
        say(f"Zone {zone} is there.")
        return
    if way.registry is None:
        raise Failure(
            "Nodes of a cluster pull images from a registry: name a place there with --registry, such as "
            "registry.example.com/skep.",
            Exit.INVALID,
        )
    made = client.post(f"/v1/zones/{zone}/cluster", ClusterZoneView, way.body() | {"region": region})
    _show_made(made, common)
    say(f"Zone {zone} is there: services run in it that name it, as with 'skep apply --zone {zone}'.")


@zone_app.command(name="set")
def set_zone(
    zone: str,
    /,
    *,
    way: Way = _UNSAID,
    common: Common = DEFAULT,
) -> None:
    """Reach a zone's cluster or registry otherwise: a token has expired, an address changed. For admins.

    What runs goes on.  It must be the same cluster while something is in the zone.

    Example: `skep zone set k8s --kubeconfig k8s.yaml`

    Parameters
    ----------
    zone
        Name of the zone.
    """
    if way == _UNSAID:
        raise Failure("Say what changes: --kubeconfig, --context, --registry or --username.", Exit.INVALID)
    changed = common.connect().patch(f"/v1/zones/{zone}/cluster", ClusterZoneView, way.body())
    _show_made(changed, common)
    say(f"Zone {zone} is reached so from now on.")


@zone_app.command(name="rm")
def remove_zone(
    zone: str,
    /,
    *,
    lost: Annotated[bool, Parameter(negative=())] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Remove a zone without hosts, or one on a cluster with nothing in it, and its pools. For admins.

    In the cluster only what skep has made is deleted.

    Example: `skep zone rm zone-2 --yes`

    Parameters
    ----------
    zone
        Name of the zone.
    lost
        Its cluster is gone for good: nothing can be deleted there.
    yes
        Do not ask.
    """
    left = ", though nothing of skep's can be deleted in its cluster" if lost else ""
    confirm(f"Remove zone {zone}{left}?", yes)
    common.connect().act("DELETE", f"/v1/zones/{zone}", lost=lost)
    say(f"Removed {zone}.")


def _must_be_of_hosts(region: str | None, way: Way) -> None:
    if region is None:
        raise Failure("Name the zone's region with --region, or its cluster with --kubeconfig.", Exit.INVALID)
    if way.context or way.registry or way.username:
        raise Failure("--context, --registry and --username are for zones with a --kubeconfig.", Exit.INVALID)


def _show_made(made: ClusterZoneView, common: Common) -> None:
    if common.output != "table":
        document(made, common.output)
    elif made.check is not None:
        show_check(made.check)

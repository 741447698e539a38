"""`skep tenant`."""

from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.output import age, confirm, parse_size, say, show, show_one, size
from skep.model.ids import Bytes
from skep.model.views.tenants import Quota, TenantView

app = App(name="tenant", help="Tenants: list, create, remove.")


@app.command(name="ls")
def list_tenants(*, common: Common = DEFAULT) -> None:
    """List the tenants with their quotas. For admins.

    Example: `skep tenant ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("APPS", lambda one: one.quota.apps),
        ("REPLICAS", lambda one: one.quota.replicas),
        ("CPUS", lambda one: f"{one.quota.cpus:g}"),
        ("MEMORY", lambda one: size(one.quota.memory)),
        ("DISK", lambda one: size(one.quota.disk)),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/tenants", list[TenantView]), columns, common.output)


@app.command
def create(
    name: str,
    /,
    *,
    apps: int = Quota().apps,
    replicas: int = Quota().replicas,
    cpus: float = Quota().cpus,
    memory: str = "256g",
    disk: str = "1t",
    published_ports: int = Quota().published_ports,
    common: Common = DEFAULT,
) -> None:
    """Make a tenant. For admins.

    Example: `skep tenant create acme --replicas 20 --memory 8g`

    Parameters
    ----------
    name
        Lower-case letters, digits and dashes.
    apps
        At most so many apps.
    replicas
        At most so many replicas.
    cpus
        At most so many CPUs.
    memory
        At most so much memory.
    disk
        At most so much disk.
    published_ports
        At most so many published ports.
    """
    quota = Quota(
        apps=apps,
        replicas=replicas,
        cpus=cpus,
        memory=Bytes(parse_size(memory)),
        disk=Bytes(parse_size(disk)),
        published_ports=published_ports,
    )
    made = common.connect().post("/v1/tenants", TenantView, {"name": name, "quota": quota})
    show_one(made, [("Tenant", lambda one: one.name), ("Id", lambda one: one.id)], common.output)


@app.command
def rm(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Remove a tenant that owns no apps and no disks any more. For admins.

    Example: `skep tenant rm acme --yes`

    Parameters
    ----------
    name
        Name of the tenant.
    yes
        Do not ask.
    """
    confirm(f"Remove tenant {name}?", yes)
    common.connect().act("DELETE", f"/v1/tenants/{name}")
    say(f"Removed {name}.")

"""`skep pool`."""

from cyclopts import App

from skep.cli.common import DEFAULT, Common
from skep.cli.output import say, show
from skep.cli.values import labels_of
from skep.model.views.hosts import PoolView

pool_app = App(name="pool", help="Pools of hosts: list, add, change, remove.")


@pool_app.command(name="ls")
def list_pools(*, common: Common = DEFAULT) -> None:
    """List the pools of hosts. For admins.

    Example: `skep pool ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("ZONE", lambda one: one.zone),
        ("HOSTS", lambda one: one.hosts),
        ("CPU", lambda one: f"{one.cpu_overcommit:g}"),
        ("MEMORY", lambda one: f"{one.memory_overcommit:g}"),
        ("TENANT", lambda one: one.tenant),
        ("LABELS", lambda one: ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))),
    ]
    show(common.connect().get("/v1/pools", list[PoolView]), columns, common.output)


@pool_app.command(name="add")
def add_pool(
    pool: str,
    /,
    *,
    zone: str,
    cpu_overcommit: float | None = None,
    memory_overcommit: float | None = None,
    tenant: str | None = None,
    label: tuple[str, ...] = (),
    common: Common = DEFAULT,
) -> None:
    """Make a pool; hosts join it with `skep host add --pool`. For admins.

    Example: `skep pool add gold --zone zone-1 --memory-overcommit 1 --tenant acme`

    Parameters
    ----------
    pool
        Name of the pool.
    zone
        Zone it is in.
    cpu_overcommit
        How many times its CPUs a host may promise.
    memory_overcommit
        How many times its memory a host may promise.
    tenant
        The only one who may use it.
    label
        NAME=VALUE, of all its hosts.
    """
    body = {
        "zone": zone,
        "cpu_overcommit": cpu_overcommit,
        "memory_overcommit": memory_overcommit,
        "tenant": tenant,
        "labels": labels_of(label) or None,
    }
    common.connect().put(f"/v1/pools/{pool}", PoolView, body)
    say(f"Pool {pool} is there.")


@pool_app.command(name="set")
def set_pool(
    pool: str,
    /,
    *,
    cpu_overcommit: float | None = None,
    memory_overcommit: float | None = None,
    tenant: str | None = None,
    everybody: bool = False,
    label: tuple[str, ...] = (),
    common: Common = DEFAULT,
) -> None:
    """Change a pool; what is not said stays, and so does what runs there. For admins.

    Example: `skep pool set gold --memory-overcommit 2 --everybody`

    Parameters
    ----------
    pool
        Name of the pool.
    cpu_overcommit
        How many times its CPUs a host may promise.
    memory_overcommit
        How many times its memory a host may promise.
    tenant
        The only one who may use it from now on.
    everybody
        All tenants may use it from now on.
    label
        NAME=VALUE, of all its hosts, in place of the labels it has.
    """
    body = {
        "cpu_overcommit": cpu_overcommit,
        "memory_overcommit": memory_overcommit,
        "tenant": "" if everybody else tenant,
        "labels": labels_of(label) or None,
    }
    common.connect().put(f"/v1/pools/{pool}", PoolView, body)
    say(f"Changed {pool}.")


@pool_app.command(name="rm")
def remove_pool(pool: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a pool without hosts. For admins.

    Example: `skep pool rm gold`

    Parameters
    ----------
    pool
        Name of the pool.
    """
    common.connect().act("DELETE", f"/v1/pools/{pool}")
    say(f"Removed {pool}.")

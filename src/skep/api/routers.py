"""Every route of the API, and what its handlers may ask for."""

from typing import TYPE_CHECKING

from litestar.di import Provide

from skep.api import (
    apps,
    bundles,
    clusters,
    disks,
    endpoints,
    events,
    flows,
    hosts,
    images,
    joining,
    limits,
    metrics,
    moves,
    networks,
    queues,
    releases,
    replicas,
    rollouts,
    runs,
    schedules,
    security_groups,
    system,
    tenants,
    tokens,
    users,
)
from skep.api.auth import provide_caller

if TYPE_CHECKING:
    from skep.control.control import Control

ROUTERS = [
    module.router
    for module in (
        system,
        apps,
        releases,
        rollouts,
        moves,
        replicas,
        images,
        runs,
        flows,
        bundles,
        schedules,
        limits,
        metrics,
        events,
        disks,
        networks,
        security_groups,
        endpoints,
        hosts,
        clusters,
        joining,
        queues,
        tenants,
        users,
        tokens,
    )
]


def dependencies(control: "Control | None") -> dict[str, Provide]:
    """What handlers may ask for besides the parts of the request."""
    return {
        "control": Provide(lambda: control, sync_to_thread=False),
        "caller": Provide(provide_caller, sync_to_thread=False),
    }

"""What is told before an app is changed: what would happen, in which order, at what price."""

from enum import StrEnum

from skep.model.ids import Bytes
from skep.model.views.base import View
from skep.model.views.releases import DifferenceView


class Action(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    RECREATE = "recreate"
    REMOVE = "remove"
    KEEP = "keep"


class PlanChange(View, frozen=True, kw_only=True):
    action: Action
    kind: str
    """network, disk, service, replica, port"""
    name: str
    reason: str = ""


class PlanView(View, frozen=True, kw_only=True):
    """What `apply` would do.  `keep` changes are listed so that nothing is left to guess."""

    app: str
    revision: int
    changes: tuple[PlanChange, ...]
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return all(change.action is Action.KEEP for change in self.changes)


class ServicePlan(View, frozen=True, kw_only=True):
    """What happens to a service.  Replicas are named `web-0`."""

    service: str
    strategy: str = ""
    """What replaces its replicas: rolling, atomic or canary, with its order; "" if none is replaced."""
    before: int
    """How many replicas it has."""
    after: int
    restarts: tuple[str, ...] = ()
    """Replicas whose processes are new ones afterwards."""
    moves: tuple[str, ...] = ()
    """Replicas that are on another host afterwards: `web-0 host-1 → host-2`."""
    touches: tuple[str, ...] = ()
    """Names by which it is reached and that lead elsewhere afterwards: endpoints, published ports."""
    interruption: str = ""
    """Why requests to it may fail meanwhile; "" if none should."""


class HostNeed(View, frozen=True, kw_only=True):
    """What a host gets in addition when most replicas are there; what it has left is for admins to know."""

    host: str
    cpus: float
    memory: Bytes
    cpus_free: float | None = None
    memory_free: Bytes | None = None


class ResourceChange(View, frozen=True, kw_only=True):
    """What the app is promised afterwards, less what it is now.  `cost`: per hour, where prices are known."""

    replicas: int = 0
    cpus: float = 0.0
    memory: Bytes = Bytes(0)
    cost: float | None = None


class PlanDetail(PlanView, frozen=True, kw_only=True):
    """`mark`: an apply that shows it is refused if it would do anything else than this by then."""

    mark: str
    differences: tuple[DifferenceView, ...] = ()
    """From the current release, if there is one."""
    services: tuple[ServicePlan, ...] = ()
    order: tuple[tuple[str, ...], ...] = ()
    """Steps of the run; those of one group need nothing of each other, and all of the groups before."""
    peak: tuple[HostNeed, ...] = ()
    resources: ResourceChange = ResourceChange()

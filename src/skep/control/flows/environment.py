"""What steps are given: one environment for those that run in control, one for those that run on a host."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Protocol

from skep.control.canary import Sides
from skep.control.host_directory import HostDirectory
from skep.control.image_sources import ImageSources
from skep.control.ports import Desired, Host
from skep.control.telling.balancing import Balancing
from skep.control.telling.guarding import Guarding
from skep.control.telling.peering import Peering
from skep.control.telling.traffic import Traffic
from skep.flow import Context
from skep.model.ids import HostName, ServiceId


class Counting(Protocol):
    async def counts(self, services: Collection[ServiceId], revision: int) -> Mapping[ServiceId, Sides]:
        """What was answered until now, of all hosts together; nothing of services that nobody counts."""


@dataclass(frozen=True)
class CloudEnvironment:
    """For steps in control.  Transactional ones write through `cx.tx`."""

    now: Callable[[], float]
    """Seconds since 1970."""
    networks: IPv4Network
    """The range that tenants' subnets are cut from."""
    traffic: Traffic
    counting: Counting | None = None
    """What services have answered; None: nothing counts it."""
    hosts: HostDirectory | None = None
    """For what goes from one host to another; None: there is but one."""


@dataclass(frozen=True)
class HostEnvironment:
    """For steps routed to a host (`on: agent.<host>`)."""

    name: HostName
    host: Host
    desired: Desired
    sources: ImageSources
    peering: Peering | None = None
    """Tells the other hosts; None: there are no others."""
    guarding: Guarding | None = None
    """Tells hosts what guards their ports; None: nothing does."""
    balancing: Balancing | None = None
    """Tells hosts where virtual IPs lead; None: there are none."""


Cloud = Context[CloudEnvironment]
OnHost = Context[HostEnvironment]

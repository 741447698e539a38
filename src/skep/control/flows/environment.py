"""What steps are given: one environment for those that run in control, one for those that run on a host."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from skep.control.peering import Peering
from skep.control.ports import Desired, Host
from skep.flow import Context


@dataclass(frozen=True)
class CloudEnvironment:
    """For steps in control.  Transactional ones write through `cx.tx`."""

    spool: Path
    """Where uploads wait for the run that takes them."""
    now: Callable[[], float]
    """Seconds since 1970."""
    networks: IPv4Network
    """The range that tenants' subnets are cut from."""


@dataclass(frozen=True)
class HostEnvironment:
    """For steps routed to a host (`on: agent.<host>`)."""

    host: Host
    desired: Desired
    spool: Path
    name: str = ""
    peering: Peering | None = None
    """Tells the other hosts; None: there are no others."""


Cloud = Context[CloudEnvironment]
OnHost = Context[HostEnvironment]

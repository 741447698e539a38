"""Hosts, pools and zones."""

from typing import Literal

from skep.model.ids import Bytes
from skep.model.views.base import View


class HostView(View, frozen=True, kw_only=True):
    """`state`: joining, ready, cordoned, draining, lost or gone; `seen`: its last sign of life."""

    name: str
    zone: str
    region: str
    pool: str
    cpus: int
    memory: Bytes
    kernel: str
    cgroups: str
    state: str
    replicas: int
    pool_total: Bytes
    pool_used: Bytes
    labels: dict[str, str]
    cpu_overcommit: float
    memory_overcommit: float
    address: str
    underlay: str
    version: str
    seen: str | None


class StayingView(View, frozen=True, kw_only=True):
    """`waits`: it goes by itself as soon as it can; otherwise somebody must act."""

    replica: str
    reason: str
    waits: bool = False


class HostDetail(View, frozen=True, kw_only=True):
    """`replicas` as `shop/web-0`; `disks` are data disks by name.

    `staying`: of a host that is being emptied, why they are still there.
    """

    host: HostView
    replicas: tuple[str, ...]
    disks: tuple[str, ...]
    staying: tuple[StayingView, ...] = ()


class DrainView(View, frozen=True, kw_only=True):
    """`runs` move what can go; what stays says why."""

    host: str
    runs: tuple[str, ...]
    staying: tuple[StayingView, ...]


class PoolView(View, frozen=True, kw_only=True):
    """`tenant`: the only one who may use it; None: everybody."""

    name: str
    zone: str
    hosts: int
    cpu_overcommit: float
    memory_overcommit: float
    tenant: str | None
    labels: dict[str, str]


class ZoneView(View, frozen=True, kw_only=True):
    """`engine`: what runs containers there, skep's own hosts or a cluster, which counts as one host."""

    name: str
    region: str
    hosts: int
    engine: Literal["skep", "kubernetes"] = "skep"

"""Apps with their replicas, and what is heard of them."""

from enum import StrEnum

import msgspec

from skep.model.ids import Bytes
from skep.model.spec import AppSpec
from skep.model.views.base import View


class AppState(StrEnum):
    EMPTY = "empty"
    RUNNING = "running"
    """Every replica that should run does, and none is unhealthy."""
    PARTIAL = "partial"
    STOPPED = "stopped"
    CHANGING = "changing"


class AppView(View, frozen=True, kw_only=True):
    id: str
    name: str
    tenant: str
    state: AppState
    revision: int
    services: tuple[str, ...]
    replicas: int
    running: int
    finished: int = 0
    """Replicas whose one job is done, and that need not run."""
    left_in: tuple[str, ...] = ()
    """The zones where it left its disks when it moved, until that is confirmed."""
    urls: tuple[str, ...]
    created: str
    updated: str


class ReplicaView(View, frozen=True, kw_only=True):
    id: str
    app: str
    service: str
    name: str
    """`web-0`"""
    desired: str
    state: str
    """pending, created, running, restarting, exited, stopped"""
    health: str
    addresses: tuple[str, ...]
    mac: str
    virtual_ips: tuple[str, ...] = ()
    """The addresses of its service."""
    ports: tuple[str, ...]
    """`0.0.0.0:8080->80/tcp`"""
    image: str
    image_digest: str
    revision: int
    restarts: int
    exit_code: int | None
    oom_killed: bool
    error: str
    host: str
    started: str | None
    finished: str | None
    created: str


class AppDetail(View, frozen=True, kw_only=True):
    app: AppView
    spec: AppSpec | None
    """The current release as it was applied; the contents of configs and secrets are left out."""
    replicas: tuple[ReplicaView, ...]
    virtual_ips: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Addresses of its services, one on each network; none of an app that is in a cluster."""


class UsageView(View, frozen=True, kw_only=True):
    replica: str
    cpu_seconds: float
    memory: Bytes
    memory_limit: Bytes | None
    pids: int
    disk: Bytes
    disk_size: Bytes
    unmeasured: str = ""
    """Why nothing is known of it: a cluster may measure nothing."""


class EventView(View, frozen=True, kw_only=True):
    """A change of state in the cloud, as `GET /v1/events` streams it."""

    kind: str
    """replica, app, run"""
    app: str
    name: str
    state: str
    at: str
    message: str = ""


class LogView(View, frozen=True, kw_only=True):
    """One line that the replica wrote; `time` has nanoseconds, `stream` is stdout or stderr."""

    replica: str
    time: str
    stream: str
    text: str

"""What documents of releases are put together from, whatever the strategy.

A replica's steps are called after it (`web-0`, `web-0-ready`), those of a batch after its service
(`web-batch-1-admit`): so no two are called alike, whatever services are called.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from skep.control.flows.writing import Steps, route
from skep.control.plans.plans import Plan, ReplicaChange
from skep.control.telling.serving import FULL
from skep.model.ids import HostName, ReplicaId, ServiceId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, HealthCheck, UpdateConfig
from skep.store.replicas import ReplicaRow

JOB_TIMEOUT = "24h"
"""How long a service that others wait for to complete may take."""
STARTING = ("create", "update", "stand-in", "start")
"""Actions after which a replica runs."""

ONE_SERVICE = ("recall", "admit", "admitted")
APP_WIDE = ("return", "shift", "announce")
"""How the steps of a shift end: of a service and of the app, which a service may be called like."""


class Parts:
    """Adds steps to the document of one release."""

    def __init__(self, plan: Plan, spec: AppSpec, steps: Steps, disks: Mapping[str, str]) -> None:
        """`disks`: the steps that make new disks, by the disks' names."""
        self.plan = plan
        self.spec = spec
        self.steps = steps
        self._disks = disks
        self.starting = [change for change in plan.replicas if change.action in STARTING]
        self.nodes = by_service(self.starting)
        self.leaving = [change for change in plan.replicas if change.action == "remove"]

    def config(self, service: ServiceName) -> UpdateConfig:
        wanted = self.spec.services[service]
        return wanted.rollback if self.plan.rollback else wanted.update

    def is_new(self, service: ServiceName) -> bool:
        """Nobody has served it until now."""
        return service in self.plan.new_services

    def grace(self, change: ReplicaChange) -> float:
        """Seconds that connections have to end by themselves; of a service that goes, what most have."""
        service = self.spec.services.get(change.service)
        return service.stop_grace_period if service is not None else 10.0

    def needs(self, change: ReplicaChange) -> list[str]:
        """The steps that must have ended before anything of the replica is made."""
        made = [self._disks[name] for name in change.disks if name in self._disks]
        return ["prepare", *made, *self.dependencies(change.service)]

    def dependencies(self, service: ServiceName) -> list[str]:
        """Those of `depends_on`; of a new service that must be healthy also its admission."""
        found = dependencies(self.spec, service, self.nodes)
        for name, dependency in self.spec.services[service].depends_on.items():
            if dependency.condition == "service_healthy" and self.is_new(name) and self.nodes.get(name):
                found.append(f"{name}-admitted")
        return found

    def make(self, change: ReplicaChange, after: Iterable[str]) -> None:
        """A replica that was not there: all of it.  Clusters are told of each as a whole."""
        values = {
            "replica": change.replica,
            "container": change.container,
            "disk": change.system_disk,
            "host": change.host,
        }
        flow = "replica.place" if self.plan.in_cluster else "replica.create"
        self.steps[change.name] = {"flow": flow, "with": values, "after": list(after)}

    def resume(self, change: ReplicaChange, after: Iterable[str]) -> None:
        """A replica that was stopped."""
        values = {"container": change.container, "stopped": True}
        self.steps[change.name] = route("engine.resume", change.host, values, after)

    def prove(self, change: ReplicaChange) -> str:
        """It is ready, and stays so for as long as its service is monitored; answers the last step."""
        config = self.config(change.service)
        self.steps[f"{change.name}-ready"] = ready(change, self.spec)
        if self.is_new(change.service) and not config.monitor:
            return f"{change.name}-ready"
        values = {"container": change.container, "seconds": config.monitor, "grace": self.grace(change)}
        self.steps[f"{change.name}-proven"] = route(
            "rollout.prove", change.host, values, [f"{change.name}-ready"]
        )
        return f"{change.name}-proven"

    def complete(self, change: ReplicaChange) -> None:
        add_completions(self.steps, self.spec, [change])

    def drain(self, change: ReplicaChange, container: str, host: HostName, after: Iterable[str]) -> str:
        """Connections to what goes end, or their time is over; answers the step."""
        values = {"container": container, "seconds": self.grace(change)}
        self.steps[f"{change.name}-drain"] = route("rollout.drain", host, values, after)
        return f"{change.name}-drain"

    def halt_old(self, change: ReplicaChange, after: Iterable[str]) -> str:
        """What a stand-in replaces, or what is removed, stops; answers the step."""
        host = change.previous_host or change.host
        values = {"container": change.previous or change.container, "running": change.before == "running"}
        self.steps[f"{change.name}-old"] = route("engine.halt", host, values, after)
        return f"{change.name}-old"

    def shift(
        self,
        name: str,
        weights: Mapping[ReplicaId, int],
        before: Mapping[ReplicaId, int],
        services: Collection[ServiceName],
        after: Iterable[str],
        *,
        recall: bool = True,
        words: tuple[str, str, str] = ONE_SERVICE,
    ) -> str:
        """Who serves changes, and hosts are told; taken back, they are told again.  Answers the last step."""
        again, shifted, told = (f"{name}-{word}" for word in words)
        ids = self.service_ids(services)
        latest = list(after)
        if recall:
            self.steps[again] = {"use": "traffic.recall", "with": {"services": ids}, "after": latest}
            latest = [again]
        values = {"weights": dict(weights), "before": dict(before)}
        self.steps[shifted] = {"use": "traffic.shift", "with": values, "after": latest}
        return self.tell(told, services, [shifted])

    def wait(self, name: str, seconds: float, after: Iterable[str]) -> list[str]:
        """Let so much time pass; answers what comes last then."""
        if not seconds:
            return list(after)
        self.steps[name] = {
            "wait": "for",
            "with": {"duration": f"{seconds:g}s"},
            "after": list(after),
        }
        return [name]

    def tell(self, name: str, services: Collection[ServiceName], after: Iterable[str]) -> str:
        self.steps[name] = {
            "use": "traffic.announce",
            "with": {"services": self.service_ids(services)},
            "after": list(after),
        }
        return name

    def service_ids(self, services: Collection[ServiceName]) -> list[ServiceId]:
        known = self.plan.services | self.plan.known_services
        return [known[name] for name in dict.fromkeys(services) if name in known]


def full(changes: Iterable[ReplicaChange]) -> dict[ReplicaId, int]:
    return {change.replica: FULL for change in changes}


def none(changes: Iterable[ReplicaChange]) -> dict[ReplicaId, int]:
    return {change.replica: 0 for change in changes}


def old_none(changes: Iterable[ReplicaChange]) -> dict[ReplicaId, int]:
    """No connections to what stand-ins replace."""
    return {change.replaces: 0 for change in changes if change.replaces is not None}


def old_weights(changes: Iterable[ReplicaChange]) -> dict[ReplicaId, int]:
    """What had the connections until now."""
    return {change.replaces or change.replica: change.weight for change in changes}


def by_service(items: Collection[ReplicaChange] | Collection[ReplicaRow]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = {}
    for item in items:
        nodes.setdefault(item.service, []).append(item.name)
    return nodes


def dependencies(spec: AppSpec, service: ServiceName, nodes: Mapping[str, list[str]]) -> list[str]:
    """The nodes that must have ended before a replica of the service may start."""
    suffix = {
        "service_started": "",
        "service_healthy": "-ready",
        "service_completed_successfully": "-completed",
    }
    return [
        f"{node}{suffix[dependency.condition]}"
        for name, dependency in spec.services[service].depends_on.items()
        for node in nodes.get(name, [])
    ]


def dependants(spec: AppSpec, service: ServiceName, nodes: Mapping[str, list[str]]) -> list[str]:
    return [
        node
        for name, other in spec.services.items()
        if service in other.depends_on
        for node in nodes.get(name, [])
    ]


def ready(item: ReplicaChange | ReplicaRow, spec: AppSpec) -> dict[str, Any]:
    container = item.container if isinstance(item, ReplicaChange) else item.container_id
    step = route("engine.ready", item.host, {"container": container}, [item.name])
    return step | {"timeout": f"{patience(spec.services[ServiceName(item.service)].healthcheck)}s"}


def patience(check: HealthCheck | None) -> int:
    """Seconds within which a health check must have come to a verdict; the image's own may be the longest."""
    if check is None:
        return 600
    return int(check.start_period + (check.interval + check.timeout) * (check.retries + 1)) + 60


def add_completions(steps: Steps, spec: AppSpec, acting: Iterable[ReplicaChange | ReplicaRow]) -> None:
    """A node that waits for the end of each service that others want completed."""
    awaited = jobs(spec)
    for item in acting:
        if item.service in awaited:
            container = item.container if isinstance(item, ReplicaChange) else item.container_id
            steps[f"{item.name}-completed"] = route(
                "engine.completed", item.host, {"container": container}, [item.name]
            ) | {"timeout": JOB_TIMEOUT}


def jobs(spec: AppSpec) -> set[str]:
    """Services that others want completed."""
    return {
        name
        for service in spec.services.values()
        for name, dependency in service.depends_on.items()
        if dependency.condition == "service_completed_successfully"
    }

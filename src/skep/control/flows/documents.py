"""Flow documents made from plans: one node per replica, wired by the app's `depends_on`.

A document is data like any hand-written flow: it is stored with its run, shown by `skep run show`, and
inlines the flows of this folder (`replica.create`, …), which operators may change.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import yaml

from skep.control import publications
from skep.control.plans import Move, Plan, ReplicaChange, found
from skep.documents import resolve
from skep.model.ids import AppId, ContainerId, DiskId, HostName, NetworkId, ReplicaId, ServiceId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, HealthCheck
from skep.store.replicas import ReplicaRow


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """The one in C where PyYAML was built with it: ten times faster."""


def _text(dumper: Any, value: str) -> yaml.Node:
    """Quoted where our reader would take it for something else: it and PyYAML differ about `1e3` and `08`."""
    node: yaml.Node = dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if resolve(value) == value else "'"
    )
    return node


_Dumper.add_representer(str, _text)

Steps = dict[str, dict[str, Any]]
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
ENDPOINTS = "tell-endpoints"
JOB_TIMEOUT = "24h"
"""How long a service that others wait for to complete may take."""


def apply(plan: Plan, spec: AppSpec, builder: HostName) -> str:
    """The flow that leads from the current release to the planned one.

    An image that is nowhere yet is fetched by a host that needs it; by the `builder`, if none does.
    """
    steps: Steps = {"begin": {"use": "release.begin", "with": {"release": plan.release}}}
    for service, reference in plan.pulls.items():
        host = next(iter(_hosts_of(plan, service)), builder)
        steps[f"{service}-image"] = {
            "flow": "image.fetch",
            "with": {"release": plan.release, "service": service, "reference": reference, "host": host},
            "after": ["begin"],
        }
    steps["prepare"] = {"use": "release.prepare", "with": {"release": plan.release}, "after": list(steps)}
    acting = [change for change in plan.replicas if change.action in ("create", "update", "start")]
    nodes = _by_service(acting)
    taken = {f"{change.name}{end}" for change in acting for end in ("", "-ready", "-completed")}
    new_disks: dict[str, str] = {}
    for disk in plan.disks:
        name = new_disks[disk.name] = _named("disk", disk.name, disk.id, taken)
        steps[name] = _route("disk.create", disk.host, {"disk": disk.id}, ["prepare"])
    for change in acting:
        after = ["prepare", *(new_disks[name] for name in change.disks if name in new_disks)]
        after += _dependencies(spec, change.service, nodes)
        steps[change.name] = _replica(change) | {"after": after}
        steps[f"{change.name}-ready"] = _ready(change, spec)
    _add_completions(steps, spec, acting)
    _add_publications(steps, plan, spec, nodes)
    _add_endpoints(steps, plan, spec)
    steps["finish"] = {"use": "release.finish", "with": {"release": plan.release}, "after": list(steps)}
    return _document("app.apply", f"app/{plan.app}", steps)


def _add_endpoints(steps: Steps, plan: Plan, spec: AppSpec) -> None:
    """Every host hears of the endpoints before the release counts as done."""
    services = [plan.services[name] for name, one in spec.services.items() if one.x_skep.endpoints]
    if services:
        steps[ENDPOINTS] = {
            "use": "traffic.announce",
            "with": {"services": services},
            "after": list(steps),
        }


def switch_on(app: AppId, spec: AppSpec, replicas: Iterable[ReplicaRow]) -> str:
    """Start what was stopped, in the order of `depends_on`."""
    chosen = list(replicas)
    nodes = _by_service(chosen)
    steps: Steps = {"want": _want("running", chosen)}
    for row in chosen:
        steps[row.name] = _on_host(row, "engine.resume", _resumed(row)) | {
            "after": ["want", *_dependencies(spec, ServiceName(row.service), nodes)]
        }
        steps[f"{row.name}-ready"] = _ready(row, spec)
    _add_completions(steps, spec, chosen)
    return _document("app.start", f"app/{app}", steps)


def switch_off(app: AppId, spec: AppSpec, replicas: Iterable[ReplicaRow]) -> str:
    """Stop, dependants first."""
    chosen = list(replicas)
    nodes = _by_service(chosen)
    steps: Steps = {"want": _want("stopped", chosen)}
    for row in chosen:
        values = {"container": row.container_id, "running": found(row) == "running"}
        steps[row.name] = _on_host(row, "engine.halt", values) | {
            "after": ["want", *_dependants(spec, ServiceName(row.service), nodes)]
        }
    return _document("app.stop", f"app/{app}", steps)


def restart(app: AppId, spec: AppSpec, replicas: Iterable[ReplicaRow]) -> str:
    """Stop and start each replica again, dependencies first."""
    chosen = list(replicas)
    nodes = _by_service(chosen)
    steps: Steps = {"want": _want("running", chosen)}
    for row in chosen:
        before = spec.services[ServiceName(row.service)].depends_on
        use = "engine.restart" if row.desired == "running" else "engine.resume"
        values = {"container": row.container_id} if row.desired == "running" else _resumed(row)
        steps[row.name] = _on_host(row, use, values) | {
            "after": ["want", *(node for name in before for node in nodes.get(name, []))]
        }
    return _document("app.restart", f"app/{app}", steps)


def relocate(app: AppId, spec: AppSpec, moves: Iterable[Move], *, dead: bool = False) -> str:
    """Replicas go to other hosts, those of one service one after the other.

    `dead`: the host they were on is off.
    """
    flow = "replica.evacuate" if dead else "replica.relocate"
    steps: Steps = {}
    last: dict[str, list[str]] = {}
    chosen = list(moves)
    for move in chosen:
        row = move.replica
        running = found(row) == "running"
        values = {
            "replica": row.id,
            "container": move.container,
            "previous": row.container_id,
            "disk": move.disk,
            "source": row.host,
            "target": move.target,
            "running": running,
        }
        steps[row.name] = {"flow": flow, "with": values, "after": last.get(row.service, [])}
        last[row.service] = [row.name]
        if spec.services[ServiceName(row.service)].ports:
            published = f"{row.name}-published"
            values = {"service": row.service_id, "host": move.target}
            steps[published] = _route("network.publish", move.target, values, [row.name])
            last[row.service] = [published]
    left = [move.replica.container_id for move in chosen]
    steps["left"] = {"use": "replica.left", "with": {"app": app, "containers": left}, "after": list(steps)}
    return _document("app.relocate", f"app/{app}", steps)


def restore(app: AppId, missing: Iterable[tuple[ReplicaRow, bool]]) -> str:
    """Bring back what should run; True: its sandbox was lost, so its process must be a new one."""
    steps: Steps = {
        row.name: _on_host(row, "replica.restore", {"container": row.container_id, "fresh": fresh})
        for row, fresh in missing
    }
    return _document("app.restore", f"app/{app}", steps)


def remove(
    app: AppId,
    spec: AppSpec,
    *,
    replicas: Iterable[ReplicaRow],
    containers: Iterable[tuple[ContainerId, HostName]],
    sandboxes: Iterable[tuple[ReplicaId, HostName]],
    disks: Iterable[tuple[DiskId, HostName]],
    services: Iterable[tuple[ServiceId, HostName]],
    networks: Iterable[tuple[NetworkId, HostName]],
    names: Mapping[str, str] = {},
) -> str:
    """Remove everything of the app, users before used, and last its rows.

    `names` are what people call things, by id; steps of things without one are named by the id.
    """
    steps: Steps = {}
    chosen = list(replicas)
    nodes = _by_service(chosen)
    taken = {row.name for row in chosen}

    def step(kind: str, thing: str, host: str = "") -> str:
        return _named(kind, names.get(thing, thing), thing, taken, host)

    for service, host in services:
        steps[step("unpublish", service, host)] = _route("network.unpublish", host, {"service": service}, [])
    quiet = list(steps)
    for row in chosen:
        steps[row.name] = _on_host(row, "engine.remove", {"container": row.container_id}) | {
            "after": [*quiet, *_dependants(spec, ServiceName(row.service), nodes)]
        }
    current = {row.container_id for row in chosen}
    for container, host in containers:
        if container not in current:
            steps[step("container", container)] = _route(
                "engine.remove", host, {"container": container}, quiet
            )
    stopped = list(steps)
    for replica, host in sandboxes:
        steps[step("sandbox", replica)] = _route(
            "network.remove_sandbox", host, {"replica": replica}, stopped
        )
    unplugged = list(steps)
    for disk, host in disks:
        steps[step("disk", disk)] = _route("disk.delete", host, {"disk": disk}, stopped)
    for network, host in networks:
        steps[step("network", network, host)] = _route(
            "network.delete", host, {"network": network}, unplugged
        )
    steps["forget"] = {"use": "app.forget", "with": {"app": app}, "after": list(steps)}
    return _document("app.remove", f"app/{app}", steps)


def _named(kind: str, name: str, identity: str, taken: set[str], host: str = "") -> str:
    """A step's name that people recognise; with the identity instead where it is `taken`, which it is now.

    What is done on several hosts names the `host` from the second on.
    """
    candidates = [f"{kind}-{_safe(name)}".rstrip("-")]
    candidates += [f"{candidates[0]}-{_safe(host)}"] if host else []
    candidates += [f"{kind}-{identity}", f"{kind}-{identity}-{_safe(host)}"]
    step = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(step)
    return step


def _safe(name: str) -> str:
    return _UNSAFE.sub("-", name)


def _want(desired: str, replicas: Iterable[ReplicaRow]) -> dict[str, Any]:
    """Only those that are wanted otherwise now: the undo turns back just these."""
    changed = [row.id for row in replicas if row.desired != desired]
    return {"use": f"app.want_{desired}", "with": {"replicas": changed}}


def _replica(change: ReplicaChange) -> dict[str, Any]:
    if change.action == "start":
        return {
            "use": "engine.resume",
            "on": f"agent.{change.host}",
            "with": {"container": change.container, "stopped": True},
        }
    values = {
        "replica": change.replica,
        "container": change.container,
        "disk": change.system_disk,
        "host": change.host,
    }
    if change.action == "create":
        return {"flow": "replica.create", "with": values}
    flow = "replica.rebase" if change.new_system_disk is None else "replica.replace"
    previous = {"previous": change.previous, "running": change.before == "running"}
    return {"flow": flow, "with": values | previous}


def _resumed(row: ReplicaRow) -> dict[str, Any]:
    return {"container": row.container_id, "stopped": found(row) != "running"}


def _ready(item: ReplicaChange | ReplicaRow, spec: AppSpec) -> dict[str, Any]:
    container = item.container if isinstance(item, ReplicaChange) else item.container_id
    return {
        "use": "engine.ready",
        "on": f"agent.{item.host}",
        "with": {"container": container},
        "after": [item.name],
        "timeout": f"{_patience(spec.services[ServiceName(item.service)].healthcheck)}s",
    }


def _patience(check: HealthCheck | None) -> int:
    """Seconds within which a health check must have come to a verdict; the image's own may be the longest."""
    if check is None:
        return 600
    return int(check.start_period + (check.interval + check.timeout) * (check.retries + 1)) + 60


def _add_completions(steps: Steps, spec: AppSpec, acting: Iterable[ReplicaChange | ReplicaRow]) -> None:
    """A node that waits for the end of each service that others want completed."""
    awaited = {
        name
        for service in spec.services.values()
        for name, dependency in service.depends_on.items()
        if dependency.condition == "service_completed_successfully"
    }
    for item in acting:
        if item.service in awaited:
            container = item.container if isinstance(item, ReplicaChange) else item.container_id
            steps[f"{item.name}-completed"] = {
                "use": "engine.completed",
                "on": f"agent.{item.host}",
                "with": {"container": container},
                "after": [item.name],
                "timeout": JOB_TIMEOUT,
            }


def _add_publications(steps: Steps, plan: Plan, spec: AppSpec, nodes: Mapping[str, list[str]]) -> None:
    """What one service publishes and another published before is free in between: hosts refuse doubles."""
    ready = [f"{node}-ready" for name in plan.republish for node in nodes.get(name, [])]
    freed = []
    taken = set(steps)
    for loser, before in publications.losers(plan, spec).items():
        for host in before:
            freed.append(_named("unpublish", loser, host, taken))
            steps[freed[-1]] = _route("network.unpublish", host, {"service": loser}, ["prepare", *ready])
    for name, service in spec.services.items():
        if not service.ports and name not in plan.republish:
            continue
        after = ["prepare", *freed, *(f"{node}-ready" for node in nodes.get(name, []))]
        for host in _hosts_of(plan, name):
            step = f"{name}-publish" if f"{name}-publish" not in steps else f"{name}-publish-{_safe(host)}"
            values = {"service": plan.services[name], "host": host}
            steps[step] = _route("network.publish", host, values, after)


def _hosts_of(plan: Plan, service: ServiceName) -> list[HostName]:
    """Where the service runs from now on."""
    stays = (change for change in plan.replicas if change.action != "remove")
    return sorted({change.host for change in stays if change.service == service})


def _dependencies(spec: AppSpec, service: ServiceName, nodes: Mapping[str, list[str]]) -> list[str]:
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


def _dependants(spec: AppSpec, service: ServiceName, nodes: Mapping[str, list[str]]) -> list[str]:
    return [
        node
        for name, other in spec.services.items()
        if service in other.depends_on
        for node in nodes.get(name, [])
    ]


def _by_service(items: Collection[ReplicaChange] | Collection[ReplicaRow]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = {}
    for item in items:
        nodes.setdefault(item.service, []).append(item.name)
    return nodes


def _on_host(row: ReplicaRow, use: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"use": use, "on": f"agent.{row.host}", "with": values}


def _route(use: str, host: HostName, values: dict[str, Any], after: list[str]) -> dict[str, Any]:
    return {"use": use, "on": f"agent.{host}", "with": values, "after": after}


def _document(flow: str, lock: str, steps: Steps) -> str:
    document = {"flow": flow, "lock": [lock], "steps": steps}
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False)
    return text

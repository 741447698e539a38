"""Flow documents made for apps that are there: start, stop, restart, move, bring back, remove.

A document is data like any hand-written flow: it is stored with its run, shown by `skep run show`, and
inlines the flows of this folder (`replica.create`, …), which operators may change.  Those of releases are
made in `rollouts/`.
"""

from collections.abc import Collection, Iterable, Mapping

from skep.control.flows.rollouts import apply, move
from skep.control.flows.rollouts.parts import add_completions, by_service, dependants, dependencies, ready
from skep.control.flows.writing import Step, Steps, document, named, on_host, route
from skep.control.plans.comparing import found
from skep.control.plans.plans import Move
from skep.model.ids import AppId, ContainerId, DiskId, HostName, NetworkId, ReplicaId, ServiceId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec
from skep.store.disks import DiskRow
from skep.store.replicas import ReplicaRow

__all__ = ["apply", "forsake", "move", "relocate", "remove", "restart", "restore", "switch_off", "switch_on"]


def switch_on(app: AppId, spec: AppSpec, replicas: Iterable[ReplicaRow]) -> str:
    """Start what was stopped, in the order of `depends_on`; connections come when all is ready.

    Clusters are told before who is wanted: those that are ready there are led to at once, by what depends on
    them.
    """
    chosen = list(replicas)
    nodes = by_service(chosen)
    steps: Steps = {"want": _want("running", chosen), "expected": _announce(chosen, ["want"])}
    for row in chosen:
        steps[row.name] = on_host(row, "engine.resume", _resumed(row)) | {
            "after": ["expected", *dependencies(spec, ServiceName(row.service), nodes)]
        }
        steps[f"{row.name}-ready"] = ready(row, spec)
    steps["told"] = _announce(chosen, list(steps))
    add_completions(steps, spec, chosen)
    return document("app.start", f"app/{app}", steps)


def switch_off(app: AppId, spec: AppSpec, replicas: Iterable[ReplicaRow]) -> str:
    """No more connections, then stop, dependants first."""
    chosen = list(replicas)
    nodes = by_service(chosen)
    steps: Steps = {
        "recall": _recall(chosen, []),
        "want": _want("stopped", chosen) | {"after": ["recall"]},
        "told": _announce(chosen, ["want"]),
    }
    for row in chosen:
        values = {"container": row.container_id, "running": found(row) == "running"}
        steps[row.name] = on_host(row, "engine.halt", values) | {
            "after": ["told", *dependants(spec, ServiceName(row.service), nodes)]
        }
    return document("app.stop", f"app/{app}", steps)


def restart(app: AppId, spec: AppSpec, replicas: Iterable[ReplicaRow]) -> str:
    """Withdraw, drain, stop and start each again, dependencies first; connections come back at the end."""
    chosen = list(replicas)
    nodes = by_service(chosen)
    running = [row for row in chosen if row.desired == "running"]
    weights, nothing = {row.id: row.weight for row in running}, {row.id: 0 for row in running}
    steps: Steps = {
        "want": _want("running", chosen),
        "recall": _recall(running, ["want"]),
        "withdraw": _shift(nothing, weights, ["recall"]),
        "withdrawn": _announce(running, ["withdraw"]),
    }
    for row in chosen:
        before = spec.services[ServiceName(row.service)].depends_on
        after = ["withdrawn", *(f"{node}-ready" for name in before for node in nodes.get(name, []))]
        if row.desired == "running":
            grace = spec.services[ServiceName(row.service)].stop_grace_period
            drain = {"container": row.container_id, "seconds": grace}
            steps[f"{row.name}-drain"] = on_host(row, "rollout.drain", drain) | {"after": after}
            after = [f"{row.name}-drain"]
        use = "engine.restart" if row.desired == "running" else "engine.resume"
        values = {"container": row.container_id} if row.desired == "running" else _resumed(row)
        steps[row.name] = on_host(row, use, values) | {"after": after}
        steps[f"{row.name}-ready"] = ready(row, spec)
    steps["return"] = _recall(chosen, list(steps))
    steps["admit"] = _shift(weights, nothing, ["return"])
    steps["told"] = _announce(chosen, ["admit"])
    return document("app.restart", f"app/{app}", steps)


def relocate(app: AppId, spec: AppSpec, moves: Iterable[Move], *, dead: bool = False) -> str:
    """Replicas go to other hosts, those of one service one after the other.

    `dead`: the host they were on is off.
    """
    flow = "replica.evacuate" if dead else "replica.relocate"
    steps: Steps = {}
    last: dict[str, list[str]] = {}
    chosen = list(moves)
    for one in chosen:
        row = one.replica
        running = found(row) == "running"
        values = {
            "replica": row.id,
            "container": one.container,
            "previous": row.container_id,
            "disk": one.disk,
            "source": row.host,
            "target": one.target,
            "running": running,
        }
        steps[row.name] = {"flow": flow, "with": values, "after": last.get(row.service, [])}
        last[row.service] = [row.name]
        if spec.services[ServiceName(row.service)].ports:
            published = f"{row.name}-published"
            values = {"service": row.service_id, "host": one.target}
            steps[published] = route("network.publish", one.target, values, [row.name])
            last[row.service] = [published]
    left = [one.replica.container_id for one in chosen]
    steps["left"] = {"use": "replica.left", "with": {"app": app, "containers": left}, "after": list(steps)}
    return document("app.relocate", f"app/{app}", steps)


def restore(app: AppId, missing: Iterable[tuple[ReplicaRow, bool]]) -> str:
    """Bring back what should run; True: its sandbox was lost, so its process must be a new one."""
    steps: Steps = {
        row.name: on_host(row, "replica.restore", {"container": row.container_id, "fresh": fresh})
        for row, fresh in missing
    }
    return document("app.restore", f"app/{app}", steps)


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
    nodes = by_service(chosen)
    taken = {row.name for row in chosen}

    def step(kind: str, thing: str, host: str = "") -> str:
        return named(kind, names.get(thing, thing), thing, taken, host)

    for service, host in services:
        steps[step("unpublish", service, host)] = route("network.unpublish", host, {"service": service}, [])
    quiet = list(steps)
    for row in chosen:
        steps[row.name] = on_host(row, "engine.remove", {"container": row.container_id}) | {
            "after": [*quiet, *dependants(spec, ServiceName(row.service), nodes)]
        }
    current = {row.container_id for row in chosen}
    for container, host in containers:
        if container not in current:
            steps[step("container", container)] = route(
                "engine.remove", host, {"container": container}, quiet
            )
    stopped = list(steps)
    for replica, host in sandboxes:
        steps[step("sandbox", replica)] = route("network.remove_sandbox", host, {"replica": replica}, stopped)
    unplugged = list(steps)
    for disk, host in disks:
        steps[step("disk", disk)] = route("disk.delete", host, {"disk": disk}, stopped)
    for network, host in networks:
        steps[step("network", network, host)] = route("network.delete", host, {"network": network}, unplugged)
    steps["forget"] = {"use": "app.forget", "with": {"app": app}, "after": list(steps)}
    return document("app.remove", f"app/{app}", steps)


def forsake(
    app: AppId,
    *,
    disks: Iterable[DiskRow],
    networks: Iterable[tuple[NetworkId, HostName]],
    off: Collection[HostName] = (),
) -> str:
    """What an app left behind when it moved goes, and then has no rows.

    Nothing is asked of hosts that are `off`.
    """
    chosen = list(disks)
    steps: Steps = {}
    taken: set[str] = set()
    for disk in chosen:
        if disk.host not in off:
            step = named("disk", disk.volume, disk.id, taken)
            steps[step] = route("disk.delete", disk.host, {"disk": disk.id}, [])
    for network, host in networks:
        if host not in off:
            step = named("network", network, network, taken, host)
            steps[step] = route("network.delete", host, {"network": network}, [])
    values = {"app": app, "disks": [disk.id for disk in chosen]}
    steps["forget"] = {"use": "disk.forget_left", "with": values, "after": list(steps)}
    return document("app.confirm", f"app/{app}", steps)


def _want(desired: str, replicas: Iterable[ReplicaRow]) -> Step:
    """Only those that are wanted otherwise now: the undo turns back just these."""
    changed = [row.id for row in replicas if row.desired != desired]
    return {"use": f"app.want_{desired}", "with": {"replicas": changed}}


def _resumed(row: ReplicaRow) -> dict[str, object]:
    return {"container": row.container_id, "stopped": found(row) != "running"}


def _announce(replicas: Iterable[ReplicaRow], after: list[str]) -> Step:
    services = list(dict.fromkeys(row.service_id for row in replicas))
    return {"use": "traffic.announce", "with": {"services": services}, "after": after}


def _recall(replicas: Iterable[ReplicaRow], after: list[str]) -> Step:
    return _announce(replicas, after) | {"use": "traffic.recall"}


def _shift(weights: Mapping[ReplicaId, int], before: Mapping[ReplicaId, int], after: list[str]) -> Step:
    return {
        "use": "traffic.shift",
        "with": {"weights": dict(weights), "before": dict(before)},
        "after": after,
    }

"""The document of a release: what comes before and after every strategy."""

from skep.control.flows.rollouts import atomic, canary, rolling
from skep.control.flows.rollouts.parts import APP_WIDE, Parts, none, old_weights
from skep.control.flows.writing import Steps, document, named, route, safe
from skep.control.plans import publications
from skep.control.plans.plans import Plan
from skep.model.ids import HostName, ServiceId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec

ENDPOINTS = "tell-endpoints"


def apply(plan: Plan, spec: AppSpec, builder: HostName) -> str:
    """The flow that leads from the current release to the planned one.

    An image that is nowhere yet is fetched by a host that needs it; by the `builder`, if none does.
    """
    steps = _beginning(plan, spec, builder)
    disks = add_disks(steps, plan)
    parts = Parts(plan, spec, steps, disks)
    match spec.x_skep.release.strategy:
        case "atomic":
            atomic.release(parts)
        case "canary":
            canary.release(parts)
        case "rolling":
            for name in spec.services:
                rolling.service(parts, name)
            _leave(parts)
    _add_publications(parts)
    _add_endpoints(parts)
    steps["finish"] = {"use": "release.finish", "with": {"release": plan.release}, "after": list(steps)}
    return document("app.apply", f"app/{plan.app}", steps, timeout=spec.x_skep.release.deadline or None)


def _beginning(plan: Plan, spec: AppSpec, builder: HostName) -> Steps:
    steps: Steps = {"begin": {"use": "release.begin", "with": {"release": plan.release}}}
    for service, reference in plan.pulls.items():
        host = next(iter(hosts_of(plan, service)), builder)
        steps[f"{service}-image"] = {
            "flow": "image.fetch",
            "with": {"release": plan.release, "service": service, "reference": reference, "host": host},
            "after": ["begin"],
        }
    fetched = list(steps)
    if services := _known_to_hosts(plan, spec):
        # On the way back hosts are told when the rows are as they were before.
        steps["recall"] = {"use": "traffic.recall", "with": {"services": services}, "after": ["begin"]}
        fetched.append("recall")
    steps["prepare"] = {"use": "release.claim", "with": {"release": plan.release}, "after": fetched}
    return steps


def _known_to_hosts(plan: Plan, spec: AppSpec) -> list[ServiceId]:
    """Services of before whose ports or endpoints may change."""
    led = [name for name in spec.services if name in plan.republish or spec.services[name].x_skep.endpoints]
    found = [plan.services[name] for name in led if name not in plan.new_services]
    return list(dict.fromkeys([*found, *(port.service_id for port in plan.published_before)]))


def add_disks(steps: Steps, plan: Plan) -> dict[str, str]:
    """By the disks' names the steps that make them."""
    taken = _names_like_disks(plan)
    found: dict[str, str] = {}
    for disk in plan.disks:
        name = found[disk.name] = named("disk", disk.name, disk.id, taken)
        steps[name] = route("disk.create", disk.host, {"disk": disk.id}, ["prepare"])
    return found


def _names_like_disks(plan: Plan) -> set[str]:
    """What services that are called like a disk's step may call theirs: disks give way."""
    numbers = range(len(plan.replicas) + 1)
    names = {change.service for change in plan.replicas if change.service.startswith("disk")}
    replicas = {f"{name}-{number}" for name in names for number in numbers}
    batches = {f"{name}-batch-{number}" for name in names for number in numbers}
    return (
        replicas
        | {f"{one}-{end}" for one in replicas for end in REPLICA_ENDS}
        | {f"{one}-{end}" for one in batches for end in BATCH_ENDS}
        | {f"{one}-{end}" for one in names for end in SERVICE_ENDS}
    )


REPLICA_ENDS = (
    "image",
    "furnish",
    "drain",
    "stop",
    "snapshot",
    "data",
    "ready",
    "proven",
    "completed",
    "old",
)
BATCH_ENDS = ("wait", "back", "withdraw", "withdrawn", "verdict", "approval", "recall", "admit", "admitted")
SERVICE_ENDS = ("image", "recall", "admit", "admitted", "publish")


def _leave(parts: Parts) -> None:
    """What the release does not have any more goes when everything else is in force."""
    leaving = parts.leaving
    if not leaving:
        return
    services = atomic.services_of(leaving)
    told = parts.shift(
        "leaving", none(leaving), old_weights(leaving), services, list(parts.steps), words=APP_WIDE
    )
    for change in leaving:
        running = change.before == "running"
        latest = parts.drain(change, change.container, change.host, [told]) if running else told
        parts.halt_old(change, [latest])


def _add_publications(parts: Parts) -> None:
    """What one service publishes and another published before is free in between: hosts refuse doubles."""
    plan, spec, steps = parts.plan, parts.spec, parts.steps
    ready = [f"{node}-ready" for name in plan.republish for node in parts.nodes.get(name, [])]
    freed: list[str] = []
    taken = set(steps)
    for loser, before in publications.losers(plan, spec).items():
        for host in before:
            freed.append(named("unpublish", loser, host, taken))
            steps[freed[-1]] = route("network.unpublish", host, {"service": loser}, ["prepare", *ready])
    for name in plan.republish:
        # Of what was published before, the way back is that everybody is told again ("recall").
        use = "network.publish" if parts.is_new(name) else "network.republish"
        after = ["prepare", *freed, *_served(parts, name)]
        for host in hosts_of(plan, name):
            step = f"{name}-publish" if f"{name}-publish" not in steps else f"{name}-publish-{safe(host)}"
            values = {"service": plan.services[name], "host": host}
            steps[step] = route(use, host, values, after)


def _add_endpoints(parts: Parts) -> None:
    """Every host hears of the endpoints before the release counts as done."""
    services = [name for name, one in parts.spec.services.items() if one.x_skep.endpoints]
    if services:
        parts.tell(ENDPOINTS, services, list(parts.steps))


def _served(parts: Parts, name: ServiceName) -> list[str]:
    """The steps after which the service has what connections are led to."""
    if f"{name}-admit" in parts.steps and parts.is_new(name):
        return [f"{name}-admit"]
    return [f"{node}-ready" for node in parts.nodes.get(name, [])]


def hosts_of(plan: Plan, service: ServiceName) -> list[HostName]:
    """Where the service runs from now on."""
    stays = (change for change in plan.replicas if change.action != "remove")
    return sorted({change.host for change in stays if change.service == service})

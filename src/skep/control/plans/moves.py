"""Whether an app can move as a whole, and what a plan for it is made of.  Pure.

A move is a release of what the app is already, with another home: every replica has a stand-in there, every
disk of its own another one.  What the target lacks is refused where it is for every plan (`homes.py`).
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from skep.control.naming import disk_name
from skep.control.plans import fixed_addresses
from skep.control.plans.comparing import ordinals
from skep.control.plans.homes import named_zones
from skep.control.plans.plans import Destination, Facts, Plan
from skep.model.errors import Conflict
from skep.model.ids import AppId, ZoneName
from skep.model.spec import AppSpec
from skep.store.disks import LEFT, DiskRow


def going(
    facts: Facts,
    spec: AppSpec,
    destination: Destination,
    of_app: Iterable[DiskRow],
    *,
    keep_new: bool = True,
) -> Facts:
    """The facts for a plan of the move; `of_app` are the app's disks, those that it left somewhere, too.

    `keep_new`: what its disks hold now goes along; otherwise it has those again that it left over there.

    Raises:
        Conflict: it is there already, or has what cannot be carried.
    """
    known = [row for row in of_app if row.kind == "data"]
    _must_be_elsewhere(facts, spec, destination)
    _must_be_whole(facts, spec)
    _must_be_portable(spec)
    moving = _moving(facts, spec, [row for row in known if not row.side])
    stays = {name: row for name, row in facts.disks.items() if name not in moving and not row.side}
    found = {} if keep_new else _waiting(facts, destination, known)
    there = {name: row for name, row in found.items() if name in moving}
    return msgspec.structs.replace(facts, destination=destination, moving=moving, disks=stays | there)


def rehomed(spec: AppSpec, destination: Destination) -> AppSpec:
    """What names the zones of the whole app names the new one from now on.

    Raises:
        Conflict: a service names another one for itself.
    """
    zones = destination.zones if spec.x_skep.zones else ()
    settled = msgspec.structs.replace(spec, x_skep=msgspec.structs.replace(spec.x_skep, zones=zones))
    for name, service in settled.services.items():
        named = named_zones(settled, service)
        if named and not named & set(destination.zones):
            raise Conflict(
                f"Service {name!r} of app {spec.name!r} asks for zone {', '.join(sorted(named))} by itself: "
                "change that in its file, and apply it first."
            )
    return settled


def zones_now(facts: Facts) -> list[ZoneName]:
    """Where its replicas are."""
    return sorted({facts.zones[row.host] for row in facts.replicas if row.host in facts.zones})


def remarks(plan: Plan, facts: Facts, spec: AppSpec) -> Iterator[str]:
    """What people should know before, and would not expect."""
    before = {zone for zone in zones_now(facts) if zone in facts.clusters}
    after = {plan.destination.home} if plan.destination and plan.destination.home else set()
    if before != after:
        yield "Networks end at a cluster: apps that stay where they are do not reach it by name any more."
        if any(service.x_skep.endpoints for service in spec.services.values()):
            yield "Its endpoints are served there from then on: let their names lead there (DNS)."
    if ended := [change.name for change in plan.replicas if change.before == "ended"]:
        yield f"What has ended is done once more over there: {', '.join(ended)}."
    if bare := [name for name, one in spec.services.items() if one.ports and name in plan.republish]:
        yield f"Its published ports are at other hosts from then on: {', '.join(bare)}."


def left_in(rows: Iterable[DiskRow], app: AppId | None = None) -> list[DiskRow]:
    """The disks that it left behind, the last ones last."""
    chosen = [row for row in rows if row.side == LEFT and app in (None, row.app_id)]
    return sorted(chosen, key=lambda row: (row.created, row.id))


def _must_be_elsewhere(facts: Facts, spec: AppSpec, destination: Destination) -> None:
    now = zones_now(facts)
    if now == sorted(destination.zones):
        raise Conflict(f"App {spec.name!r} is in {destination.words} already.")
    own = [zone for zone in now if zone not in facts.clusters]
    if destination.cluster or not own:
        return
    if len(own) > 1 or len(destination.zones) > 1:
        raise Conflict(
            f"App {spec.name!r} is in the zones {', '.join(own)} of skep's own, which its networks reach: of "
            "these only one whose replicas are all in one zone moves to another."
        )


def _must_be_whole(facts: Facts, spec: AppSpec) -> None:
    for name, service in spec.services.items():
        members = [row for row in facts.replicas if row.service == name]
        if len(members) != service.replicas:
            raise Conflict(
                f"Service {name!r} has {len(members)} of {service.replicas} replicas: apply the app first."
            )
    if silent := sorted({row.host for row in facts.replicas} & facts.silent):
        raise Conflict(
            f"Host {silent[0]}, where replicas of app {spec.name!r} are, does not answer: the app moves when "
            "it is back."
        )
    if stopped := [row.name for row in facts.replicas if row.desired != "running"]:
        raise Conflict(
            f"{', '.join(stopped)} of app {spec.name!r} {'is' if len(stopped) == 1 else 'are'} stopped, and "
            f"what moves is started over there: say 'skep start {spec.name}' first."
        )


def _must_be_portable(spec: AppSpec) -> None:
    for name, service in spec.services.items():
        where = f"Service {name!r} of app {spec.name!r}"
        if bound := [mount.source for mount in service.mounts if mount.type == "bind"]:
            raise Conflict(
                f"{where} uses the path {bound[0]} of its host, which does not move: use a volume."
            )
        if service.x_skep.keep_system_disk:
            raise Conflict(f"{where} keeps its system disk, which does not move: use a volume.")
        if fixed_addresses.of_service(service) is not None:
            raise Conflict(
                f"{where} has a fixed address, which only one of two sides can have: leave that out of its "
                "file and apply it first, or remove the app and apply it over there."
            )
    for volume in spec.volumes.values():
        if volume.external:
            raise Conflict(
                f"App {spec.name!r} uses the external volume {volume.external!r}, which is not its own: it "
                "stays where it is."
            )


def _moving(facts: Facts, spec: AppSpec, has: Sequence[DiskRow]) -> dict[str, DiskRow]:
    """The disks that its replicas have, by name.  Raises Conflict: nobody uses one of them now."""
    used = {
        disk_name(spec.name, name, ordinal, mount, spec)
        for name, service in spec.services.items()
        for mount in service.mounts
        if mount.type == "volume"
        for ordinal in ordinals(facts, spec, name)
    }
    if spare := sorted(row.name for row in has if row.name not in used):
        raise Conflict(
            f"No replica of app {spec.name!r} uses {', '.join(spare)} now: remove what is not needed ('skep "
            "disk rm'), or scale its service up first."
        )
    return {row.name: row for row in has}


def _waiting(facts: Facts, destination: Destination, known: Iterable[DiskRow]) -> dict[str, DiskRow]:
    """What it left over there, by volume; of several of one the last."""
    return {row.volume: row for row in left_in(known) if facts.zones.get(row.host) in destination.zones}

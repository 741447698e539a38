"""What there is of a replica against what a release wants of it.  Pure: facts in, words out."""

from typing import Literal

from skep.control.naming import disk_name, fingerprint
from skep.control.plans import victims
from skep.control.plans.plans import Facts
from skep.model.host import ContainerState
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, ServiceSpec
from skep.store.replicas import ReplicaRow


def ordinals(facts: Facts, spec: AppSpec, name: ServiceName) -> list[int]:
    """Of the replicas that the service will have; they need not follow each other."""
    present = [row for row in facts.replicas if row.service == name and not row.stand_in]
    return victims.ordinals(spec.services[name], present, facts.zones, facts.silent)


def found(row: ReplicaRow) -> Literal["running", "stopped", "ended"]:
    """What a failed change has to bring back."""
    if row.desired != "running":
        return "stopped"
    return "ended" if row.status is not None and row.status.state is ContainerState.EXITED else "running"


def difference(facts: Facts, spec: AppSpec, row: ReplicaRow, force_recreate: bool) -> str:
    """Why the replica needs a new container; empty if it does not."""
    name = ServiceName(row.service)
    image = facts.images.get(name)
    if force_recreate:
        return "asked for"
    if image is None:
        return "its image has to be pulled"
    if facts.containers[row.container_id].fingerprint == fingerprint(spec, name, image.digest):
        return "its data goes back" if _goes_back(facts, spec, row) else ""
    before = facts.current.services.get(name) if facts.current else None
    changed = _changed_fields(before, spec.services[name])
    return f"changed: {', '.join(changed)}" if changed else "its image, files or networks changed"


def _goes_back(facts: Facts, spec: AppSpec, row: ReplicaRow) -> bool:
    mounts = [one for one in spec.services[ServiceName(row.service)].mounts if one.type == "volume"]
    names = [disk_name(spec.name, row.service, row.ordinal, mount, spec) for mount in mounts]
    return any(facts.disks[name].id in facts.data for name in names if name in facts.disks)


def _changed_fields(before: ServiceSpec | None, after: ServiceSpec) -> list[str]:
    if before is None:
        return []
    return [
        field
        for field in after.__struct_fields__
        if field not in ("replicas", "ports", "depends_on")
        and getattr(before, field) != getattr(after, field)
    ]

"""Data disks as PersistentVolumeClaims.  Pure.

Format: https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from collections.abc import Iterable, Mapping

from lightkube.resources.core_v1 import PersistentVolumeClaim
from lightkube.resources.storage_v1 import StorageClass

from skep.model.errors import Unsupported
from skep.model.host import DiskSpec, DiskUsage
from skep.model.ids import Bytes, DiskId
from skep.providers.kubernetes.joining.snapshots import GROUP
from skep.providers.kubernetes.manifests import DOMAIN, Manifest, TenantNamespace
from skep.providers.kubernetes.quantities import size

_DEFAULTS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


_DISK, _ARRIVING = f"{DOMAIN}/disk", f"{DOMAIN}/arriving"
"""Labels: of which disk it is the claim, or will be."""
_SIZE = f"{DOMAIN}/size"
"""An annotation: how large the disk is, where its volume must be larger."""


def claim_name(disk: DiskId, generation: int = 0) -> str:
    """A claim cannot go back to what it held: a disk that does has another one from then on."""
    return f"disk-{disk}-{generation}" if generation else f"disk-{disk}"


def claim(of: TenantNamespace, disk: DiskSpec, storage_class: str) -> Manifest:
    """It is bound, and its volume made, when its pod is placed or at once, as the class has it."""
    return _claim(of, claim_name(disk.id), {"disk": disk.id}, storage_class, disk.size)


def restored(
    of: TenantNamespace, disk: DiskSpec, storage_class: str, generation: int, snapshot: str, room: Bytes
) -> Manifest:
    """Of what the VolumeSnapshot holds; not the disk's yet.  `room`: the least that its volume must have."""
    name = claim_name(disk.id, generation)
    made = _claim(of, name, {"arriving": disk.id}, storage_class, Bytes(max(disk.size, room)))
    made["metadata"]["annotations"] = {_SIZE: str(disk.size)}
    made["spec"]["dataSource"] = {"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": snapshot}
    return made


def arrived(disk: DiskId, uid: str) -> Manifest:
    """The patch by which the claim that has this uid, and no other of its name, is the disk's."""
    return {"metadata": {"uid": uid, "labels": {_DISK: disk, _ARRIVING: None}}}


def larger(found: PersistentVolumeClaim, size: Bytes) -> Manifest:
    """The patch that lets a claim grow."""
    room = max(size, requested(found))
    return {
        "metadata": {"annotations": {_SIZE: str(size)}},
        "spec": {"resources": {"requests": {"storage": str(room)}}},
    }


def _claim(
    of: TenantNamespace, name: str, labels: Mapping[str, str], storage_class: str, room: Bytes
) -> Manifest:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": str(room)}},
    }
    return of.object("v1", "PersistentVolumeClaim", name, labels, spec=spec)


def disk_of(found: PersistentVolumeClaim) -> DiskId | None:
    """None: it is no disk of skep's, or on its way out."""
    if is_going(found):
        return None
    label = ((found.metadata and found.metadata.labels) or {}).get(_DISK)
    return DiskId(label) if label else None


def current(found: Iterable[PersistentVolumeClaim]) -> dict[DiskId, PersistentVolumeClaim]:
    """The claim that each disk is: the youngest that has arrived."""
    every = sorted(found, key=generation)
    return {disk: one for one in every if (disk := disk_of(one)) is not None}


def outdated(
    found: Iterable[PersistentVolumeClaim], disk: DiskId | None = None
) -> list[PersistentVolumeClaim]:
    """Those (of the disk) that are on the way to it, or are no longer it."""
    every = list(found)
    in_use = current(every)
    return [
        one
        for one in every
        if (of := wanted_by(one)) is not None
        and disk in (None, of)
        and in_use.get(of) is not one
        and not is_going(one)
    ]


def is_going(found: PersistentVolumeClaim) -> bool:
    return found.metadata is not None and found.metadata.deletionTimestamp is not None


def wanted_by(found: PersistentVolumeClaim) -> DiskId | None:
    """The disk whose claim it is, was, or will be."""
    labels = (found.metadata and found.metadata.labels) or {}
    label = labels.get(_DISK) or labels.get(_ARRIVING)
    return DiskId(label) if label else None


def generation(found: PersistentVolumeClaim) -> int:
    """How often its disk has gone back to a snapshot."""
    disk, name = wanted_by(found), (found.metadata and found.metadata.name) or ""
    number = name.removeprefix(f"{claim_name(disk)}-") if disk else ""
    return int(number) if number.isdecimal() else 0


def source(found: PersistentVolumeClaim) -> str:
    """The VolumeSnapshot that it was made of; "" if it began empty."""
    data = found.spec and found.spec.dataSource
    return data.name if data else ""


def is_bound(found: PersistentVolumeClaim | None) -> bool:
    """Whether its volume is there, with what it begins with."""
    return found is not None and found.status is not None and found.status.phase == "Bound"


def requested(found: PersistentVolumeClaim) -> Bytes:
    requests = (found.spec and found.spec.resources and found.spec.resources.requests) or {}
    return size(requests.get("storage", "0"))


def usage(found: PersistentVolumeClaim) -> DiskUsage:
    """As large as was asked for; how full it is only its node knows: 0."""
    marks = (found.metadata and found.metadata.annotations) or {}
    told = marks.get(_SIZE)
    return DiskUsage(size=size(told) if told else requested(found), used=Bytes(0), kind="data")


def chosen(classes: Iterable[StorageClass], wanted: str = "") -> StorageClass:
    """The class `wanted`, or the cluster's default.  Raises Unsupported: there is none."""
    known = {one.metadata.name or "": one for one in classes if one.metadata}
    if wanted and wanted not in known:
        raise Unsupported(
            f"There is no storage class {wanted!r}; there are: {', '.join(sorted(known)) or 'none'}."
        )
    found = known.get(wanted) or next((one for one in known.values() if is_default(one)), None)
    if found is None:
        raise Unsupported(
            "No storage class of the cluster is the default, so there are no volumes: make one with 'kubectl "
            "annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true'."
        )
    return found


def must_grow(found: StorageClass | None, name: str) -> None:
    """Raises Unsupported: claims of the class stay as they are."""
    if found is None or not found.allowVolumeExpansion:
        raise Unsupported(f"Disks of storage class {name!r} do not grow.")


def is_default(found: StorageClass) -> bool:
    """Whether claims that name no class are of this one."""
    marks = (found.metadata and found.metadata.annotations) or {}
    return any(marks.get(key) == "true" for key in _DEFAULTS)


def place(found: PersistentVolumeClaim) -> tuple[str, str]:
    """Namespace and name."""
    meta = found.metadata
    return (meta and meta.namespace) or "", (meta and meta.name) or ""

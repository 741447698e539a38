"""Snapshots of data disks as VolumeSnapshots.  Pure.

Format: https://kubernetes.io/docs/concepts/storage/volume-snapshots/
"""

from dataclasses import dataclass
from typing import Any

from skep.model.ids import Bytes, DiskId, SnapshotId, TenantId
from skep.providers.kubernetes.joining.snapshots import API
from skep.providers.kubernetes.manifests import DOMAIN, Manifest, TenantNamespace
from skep.providers.kubernetes.quantities import size

NOTHING = Bytes(0)
_NOBODY = (
    "Nobody in the cluster has taken it up: look whether its snapshot controller runs (it is installed "
    "apart from storage drivers)."
)


@dataclass(frozen=True)
class Kept:
    """A snapshot as it is seen.

    `cut`: it holds what the disk held at that moment, whatever is written from then on; `ready`: a disk can
    be made of it, which may be long after.  `room`: the least that such a disk must have.  `why` it is not
    `ready`, as far as the cluster says.
    """

    id: SnapshotId
    disk: DiskId
    tenant: TenantId
    name: str
    namespace: str
    cut: bool = False
    ready: bool = False
    going: bool = False
    room: Bytes = NOTHING
    why: str = ""


def snapshot_name(snapshot: SnapshotId) -> str:
    return f"snapshot-{snapshot}"


def manifest(
    of: TenantNamespace, disk: DiskId, claim: str, snapshot: SnapshotId, snapshot_class: str
) -> Manifest:
    spec = {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": claim}}
    labels = {"disk": disk, "snapshot": snapshot}
    return of.object(API, "VolumeSnapshot", snapshot_name(snapshot), labels, spec=spec)


def kept(found: Any) -> Kept | None:
    """None: it is none of skep's."""
    meta, status = found.metadata, found.get("status") or {}
    labels = meta.labels or {}
    if not labels.get(f"{DOMAIN}/snapshot"):
        return None
    ready = bool(status.get("readyToUse"))
    return Kept(
        id=SnapshotId(labels[f"{DOMAIN}/snapshot"]),
        disk=DiskId(labels.get(f"{DOMAIN}/disk", "")),
        tenant=TenantId(labels.get(f"{DOMAIN}/tenant", "")),
        name=meta.name,
        namespace=meta.namespace,
        cut=ready or bool(status.get("creationTime")),
        ready=ready,
        going=meta.deletionTimestamp is not None,
        room=size(str(status.get("restoreSize") or "0")),
        why="" if ready else _why(status),
    )


def _why(status: dict[str, Any]) -> str:
    said = (status.get("error") or {}).get("message") or ""
    if said:
        return f"The cluster says: {said.strip()}"
    if not status.get("boundVolumeSnapshotContentName"):
        return _NOBODY
    return "Its storage driver has not made it: look whether its csi-snapshotter runs."

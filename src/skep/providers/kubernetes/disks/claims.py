"""Data disks as PersistentVolumeClaims.  Pure.

Format: https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from collections.abc import Iterable

from lightkube.resources.core_v1 import PersistentVolumeClaim
from lightkube.resources.storage_v1 import StorageClass

from skep.model.errors import Unsupported
from skep.model.host import DiskSpec, DiskUsage
from skep.model.ids import Bytes, DiskId
from skep.providers.kubernetes.manifests import DOMAIN, Manifest, TenantNamespace
from skep.providers.kubernetes.quantities import size

_DEFAULTS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def claim_name(disk: DiskId) -> str:
    return f"disk-{disk}"


def claim(of: TenantNamespace, disk: DiskSpec, storage_class: str) -> Manifest:
    """It is bound, and its volume made, when its pod is placed or at once, as the class has it."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": str(disk.size)}},
    }
    return of.object("v1", "PersistentVolumeClaim", claim_name(disk.id), {"disk": disk.id}, spec=spec)


def larger(size: Bytes) -> Manifest:
    """The patch that lets a claim grow."""
    return {"spec": {"resources": {"requests": {"storage": str(size)}}}}


def disk_of(found: PersistentVolumeClaim) -> DiskId | None:
    """None: it is no disk of skep's, or on its way out."""
    meta = found.metadata
    if meta is None or meta.deletionTimestamp is not None:
        return None
    label = (meta.labels or {}).get(f"{DOMAIN}/disk")
    return DiskId(label) if label else None


def usage(found: PersistentVolumeClaim) -> DiskUsage:
    """As large as was asked for; how full it is only its node knows: 0."""
    requests = (found.spec and found.spec.resources and found.spec.resources.requests) or {}
    return DiskUsage(size=size(requests.get("storage", "0")), used=Bytes(0), kind="data")


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

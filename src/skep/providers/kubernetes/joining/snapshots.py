"""What a cluster has for snapshots of its volumes.  Pure.

Format: https://kubernetes.io/docs/concepts/storage/volume-snapshot-classes/
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightkube.generic_resource import create_global_resource, create_namespaced_resource

GROUP = "snapshot.storage.k8s.io"
API = f"{GROUP}/v1"
VolumeSnapshotClass = create_global_resource(GROUP, "v1", "VolumeSnapshotClass", "volumesnapshotclasses")
VolumeSnapshot = create_namespaced_resource(GROUP, "v1", "VolumeSnapshot", "volumesnapshots")
_DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class SnapshotClass:
    """`driver`: of which volumes it makes snapshots; `keeps`: what they hold stays when they are deleted."""

    name: str
    driver: str
    default: bool = False
    keeps: bool = False


def read(found: Any) -> SnapshotClass:
    marks = found.metadata.annotations or {}
    return SnapshotClass(
        name=found.metadata.name,
        driver=found.get("driver") or "",
        default=marks.get(_DEFAULT) == "true",
        keeps=found.get("deletionPolicy") == "Retain",
    )


def chosen(classes: Iterable[SnapshotClass], driver: str) -> SnapshotClass | None:
    """The one for volumes that this driver made: the default, or else the first by name."""
    fitting = [one for one in classes if driver and one.driver == driver]
    return min(fitting, key=lambda one: (not one.default, one.name), default=None)

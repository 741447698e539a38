"""Snapshots of disks as VolumeSnapshots, and what they say."""

from typing import Any

from skep.model.ids import DiskId, SnapshotId, TenantId
from skep.providers.kubernetes.disks.kept import Kept, kept, manifest
from skep.providers.kubernetes.joining.snapshots import (
    SnapshotClass,
    VolumeSnapshot,
    VolumeSnapshotClass,
    read,
)
from skep.providers.kubernetes.manifests import TenantNamespace

OF = TenantNamespace("inst", TenantId("acme"))
NOW = "2026-01-01T00:00:00Z"


def seen(metadata: dict[str, Any] | None = None, **status: Any) -> Kept:
    made = manifest(OF, DiskId("d1"), "disk-d1", SnapshotId("s1"), "kept")
    made["metadata"] |= metadata or {}
    found = kept(VolumeSnapshot.from_dict(made | {"status": status}))
    assert found is not None
    return found


def test_a_snapshot_is_of_a_claim_and_says_whose_it_is() -> None:
    made = manifest(OF, DiskId("d1"), "disk-d1-3", SnapshotId("s1"), "kept")
    found = seen()

    assert made["spec"] == {
        "volumeSnapshotClassName": "kept",
        "source": {"persistentVolumeClaimName": "disk-d1-3"},
    }
    assert (found.id, found.disk, found.tenant, found.namespace) == ("s1", "d1", "acme", "skep-acme")
    assert kept(VolumeSnapshot.from_dict({"metadata": {"name": "theirs", "namespace": "n"}})) is None


def test_what_is_written_after_the_cut_is_not_in_it_and_a_disk_is_made_of_it_once_it_is_ready() -> None:
    asked = seen()
    cut = seen(boundVolumeSnapshotContentName="c", creationTime=NOW, readyToUse=False)
    ready = seen(creationTime=NOW, readyToUse=True, restoreSize="1Gi")

    assert [(one.cut, one.ready) for one in (asked, cut, ready)] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert (ready.room, ready.why) == (2**30, "")
    assert seen({"deletionTimestamp": NOW}, readyToUse=True).going


def test_one_that_does_not_come_to_be_says_who_is_to_be_looked_at() -> None:
    assert "snapshot controller runs" in seen().why
    assert "csi-snapshotter runs" in seen(boundVolumeSnapshotContentName="c").why
    assert "quota of the array" in seen(error={"message": "quota of the array is used up"}).why


def test_a_class_says_its_driver_and_whether_it_is_the_default_and_keeps_what_was_deleted() -> None:
    marks = {"snapshot.storage.kubernetes.io/is-default-class": "true"}
    usual = VolumeSnapshotClass.from_dict(
        {"metadata": {"name": "kept", "annotations": marks}, "driver": "d", "deletionPolicy": "Retain"}
    )
    other = VolumeSnapshotClass.from_dict({"metadata": {"name": "other"}, "driver": "d"})

    assert read(usual) == SnapshotClass("kept", "d", default=True, keeps=True)
    assert read(other) == SnapshotClass("other", "d")

"""Data disks as claims."""

from typing import Any

import pytest
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import PersistentVolumeClaim
from lightkube.resources.storage_v1 import StorageClass

from skep.model.errors import Unsupported
from skep.model.host import DiskSpec
from skep.model.ids import Bytes, DiskId, TenantId
from skep.providers.kubernetes.disks import claims
from skep.providers.kubernetes.manifests import TenantNamespace

OF = TenantNamespace("inst", TenantId("acme"))


def storage_class(name: str, *, default: bool = False, grows: bool = False) -> StorageClass:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return StorageClass(
        provisioner="any", metadata=ObjectMeta(name=name, annotations=notes), allowVolumeExpansion=grows
    )


SPEC = DiskSpec(id=DiskId("d1"), size=Bytes(3 * 1024**2), kind="data", tenant=OF.tenant)


def claim(**metadata: Any) -> PersistentVolumeClaim:
    made = claims.claim(OF, SPEC, "fast")
    made["metadata"] |= metadata
    found: PersistentVolumeClaim = PersistentVolumeClaim.from_dict(made)  # type: ignore[assignment]
    return found


def test_a_claim_says_whose_disk_it_is_and_how_large() -> None:
    made = claim()

    assert claims.disk_of(made) == "d1"
    assert claims.usage(made).size == 3 * 1024**2
    assert made.spec is not None
    assert (made.spec.storageClassName, made.spec.accessModes) == ("fast", ["ReadWriteOnce"])


def test_a_claim_on_its_way_out_is_no_disk() -> None:
    assert claims.disk_of(claim(deletionTimestamp="2026-01-01T00:00:00Z")) is None
    assert claims.disk_of(claim(labels={})) is None


def test_disks_are_of_the_class_that_was_chosen_or_of_the_default() -> None:
    known = [storage_class("slow"), storage_class("usual", default=True)]

    assert [claims.chosen(known, wanted).metadata.name for wanted in ("", "slow")] == ["usual", "slow"]  # type: ignore[union-attr]
    with pytest.raises(Unsupported, match="'fast'; there are: slow, usual"):
        claims.chosen(known, "fast")
    with pytest.raises(Unsupported, match="kubectl annotate storageclass"):
        claims.chosen([storage_class("slow")])


def test_a_class_that_does_not_grow_is_named() -> None:
    claims.must_grow(storage_class("fast", grows=True), "fast")

    for found in (storage_class("slow"), None):
        with pytest.raises(Unsupported, match="'slow' do not grow"):
            claims.must_grow(found, "slow")


def restored(generation: int, room: int = 0, **labels: str | None) -> PersistentVolumeClaim:
    made = claims.restored(OF, SPEC, "fast", generation, "snapshot-s1", Bytes(room))
    made["metadata"]["labels"] |= {f"skep.dev/{key}": value for key, value in labels.items()}
    found: PersistentVolumeClaim = PersistentVolumeClaim.from_dict(made)  # type: ignore[assignment]
    return found


def test_a_restored_disk_is_the_claim_of_before_until_the_new_one_has_arrived() -> None:
    before, arriving = claim(), restored(1)
    arrived = restored(1, disk="d1")

    assert claims.current([before, arriving]) == {"d1": before}
    assert claims.current([arrived, before]) == {"d1": arrived}
    ninth, tenth = restored(9, disk="d1"), restored(10, disk="d1")
    assert claims.current([tenth, ninth]) == {"d1": tenth}


def test_what_is_on_its_way_to_a_disk_or_was_it_before_is_no_longer_needed_and_of_others_nothing() -> None:
    before, arrived, next_one = claim(), restored(1, disk="d1"), restored(2)
    other = claim(name="disk-d2", labels={"skep.dev/disk": "d2"})
    strange = claim(name="data", labels={})
    every = [before, arrived, next_one, other, strange]

    assert claims.outdated(every) == claims.outdated(every, DiskId("d1")) == [before, next_one]
    assert claims.outdated(every, DiskId("d2")) == []


def test_a_volume_may_have_to_be_larger_than_its_disk() -> None:
    made = restored(1, room=2**30, disk="d1")

    assert (claims.requested(made), claims.usage(made).size) == (2**30, SPEC.size)
    assert claims.larger(made, Bytes(4 * 1024**2)) == {
        "metadata": {"annotations": {"skep.dev/size": str(4 * 1024**2)}},
        "spec": {"resources": {"requests": {"storage": str(2**30)}}},
    }
    assert claims.larger(claim(), Bytes(2**31))["spec"]["resources"]["requests"]["storage"] == str(2**31)


def test_only_the_claim_that_was_waited_for_becomes_the_disk() -> None:
    patch = claims.arrived(DiskId("d1"), "uid-7")

    assert patch["metadata"] == {
        "uid": "uid-7",
        "labels": {"skep.dev/disk": "d1", "skep.dev/arriving": None},
    }
    assert claims.source(restored(1)) == "snapshot-s1"
    assert claims.source(claim()) == ""

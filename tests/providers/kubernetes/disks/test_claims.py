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


def claim(**metadata: Any) -> PersistentVolumeClaim:
    spec = DiskSpec(id=DiskId("d1"), size=Bytes(3 * 1024**2), kind="data", tenant=OF.tenant)
    made = claims.claim(OF, spec, "fast")
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

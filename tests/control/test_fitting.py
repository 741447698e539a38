"""What of an app's disks may be otherwise in its next release."""

import pytest

from skep.control.plans.fitting import disk_must_fit
from skep.model.errors import Conflict
from skep.model.ids import AppId, Bytes, DiskId, HostName, TenantId
from skep.model.spec import AppVolume
from skep.store.disks import DiskRow

APP = AppId("a")
MIB = 2**20
DISK = DiskRow(
    id=DiskId("d"),
    tenant_id=TenantId("t"),
    app_id=APP,
    host=HostName("k8s"),
    name="shop_data",
    kind="data",
    size=Bytes(4 * MIB),
    created=0.0,
)
BEFORE = AppVolume(size=Bytes(4 * MIB))


@pytest.mark.parametrize(
    ("size", "shrinks", "said"),
    [
        (2, True, "skep disk resize shop_data"),
        (2, False, "leave it as large as it is"),
        (8, False, "skep disk resize shop_data"),
    ],
)
def test_a_disk_is_resized_by_hand_where_it_can_be(size: int, shrinks: bool, said: str) -> None:
    wanted = AppVolume(size=Bytes(size * MIB))

    with pytest.raises(Conflict, match=said):
        disk_must_fit(DISK, APP, BEFORE, wanted, shrinks=shrinks)


@pytest.mark.parametrize("wanted", [None, AppVolume(), BEFORE])
def test_a_disk_whose_volume_is_as_before_is_not_asked_about(wanted: AppVolume | None) -> None:
    disk_must_fit(DISK, APP, BEFORE, wanted, shrinks=False)

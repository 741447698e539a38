"""A disk of a real cluster goes back to a snapshot, and who brings it back dies in the middle."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.cluster.kubernetes.cluster import Cluster
from tests.contracts.trees import held, members, shipped, tree
from tests.providers.disks.test_disks import data_disk
from tests.providers.kubernetes.zone import Zone, open_zone

from skep.model.errors import NotFound
from skep.model.ids import SnapshotId, TenantId, new_id

pytestmark = [pytest.mark.root, pytest.mark.kubernetes]
OLD, NEW = tree(before=b"old"), tree(after=b"new")


class Died(Exception):
    """As if killed: nothing is done any more."""


async def test_the_disk_is_old_or_new_as_a_whole_wherever_a_process_dies(kubernetes: Cluster) -> None:
    spec, kept = msgspec.structs.replace(data_disk(), tenant=TenantId(new_id())), SnapshotId(new_id())
    async with open_zone(kubernetes) as zone:
        await zone.disks.create(spec)
        await zone.disks.receive(spec.id, shipped(OLD))
        await zone.disks.snapshot(spec.id, kept)
        await zone.disks.receive(spec.id, shipped(NEW))

        found = []
        for dies_at in ("patch", "delete"):
            async with open_zone(kubernetes, zone.cluster.installation) as next_one:
                _die(next_one, dies_at, lambda kind: kind.__name__ == "PersistentVolumeClaim")
                with pytest.raises(Died):
                    await next_one.disks.restore(spec.id, kept)
            found.append(sorted(zone.get(spec.tenant, "pvc")))
            async with open_zone(kubernetes, zone.cluster.installation) as next_one:
                assert await held(next_one.disks, spec.id) == members(NEW if dies_at == "patch" else OLD)

        assert found == [[f"disk-{spec.id}", f"disk-{spec.id}-1"]] * 2
        await zone.disks.delete_snapshot(kept)
        assert list(await zone.disks.list()) == [spec.id]
        assert zone.disks.claim(spec.id) == f"disk-{spec.id}-1"


async def test_a_snapshot_that_somebody_deletes_is_told_and_no_disk_goes_back_to_it(
    kubernetes: Cluster,
) -> None:
    spec, kept = msgspec.structs.replace(data_disk(), tenant=TenantId(new_id())), SnapshotId(new_id())
    async with open_zone(kubernetes) as zone:
        await zone.disks.create(spec)
        await zone.disks.snapshot(spec.id, kept)

        with capture_logs() as said:
            await zone.kubectl(spec.tenant, "delete", "volumesnapshot", f"snapshot-{kept}")
            with pytest.raises(NotFound, match=f"somebody deleted the VolumeSnapshot snapshot-{kept}"):
                await zone.disks.restore(spec.id, kept)

        told = [one for one in said if one["event"] == "cluster.drift"]
        assert [(one["object"], one["snapshot"]) for one in told] == [("deleted", kept)]
        assert await zone.disks.snapshots() == {}


def _die(zone: Zone, at: str, of: Callable[[Any], bool]) -> None:
    """Its process ends before it does this to such a kind."""
    real = getattr(zone.cluster, at)

    async def dying(kind: Any, *words: Any, **more: Any) -> Any:
        if of(kind):
            raise Died
        return await real(kind, *words, **more)

    setattr(zone.cluster, at, dying)

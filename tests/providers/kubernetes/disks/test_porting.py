"""Disks go from a machine to a real cluster and back, and whoever carries them is killed."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from tests.cluster.kubernetes.cluster import Cluster
from tests.contracts.trees import held, members, shipped, tree
from tests.providers.disks.test_disks import MIB, data_disk, folder, pool_at
from tests.providers.kubernetes.zone import PORTER, open_zone

from skep.model.ids import TenantId, new_id

__all__ = ["folder"]
pytestmark = [pytest.mark.root, pytest.mark.kubernetes]

RECEIVES = """
import asyncio, sys
from pathlib import Path
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.disks.pool import ClaimPool
from skep.providers.kubernetes.tenants.tenants import Tenants

async def image():
    return sys.argv[4]

async def content():
    for _ in range(3):
        yield sys.stdin.buffer.read(1 << 20)
    print("half", flush=True)
    await asyncio.Event().wait()

async def main(kubeconfig, installation, disk):
    async with Cluster(access.read(Path(kubeconfig).read_text()), installation) as cluster:
        async with ClaimPool(cluster, Tenants(cluster), image) as pool:
            await pool.receive(disk, content())

asyncio.run(main(*sys.argv[1:4]))
"""


async def test_a_disk_goes_from_a_machine_to_a_cluster_and_back_as_it_was(
    kubernetes: Cluster, folder: Path
) -> None:
    here, back = data_disk(), data_disk()
    there = msgspec.structs.replace(data_disk(), tenant=TenantId(new_id()))
    async with pool_at(folder) as local, open_zone(kubernetes) as zone:
        await local.create(here)
        await local.create(back)
        await zone.disks.create(there)
        await local.receive(here.id, shipped(tree(large=os.urandom(4 * MIB))))
        with (await local.path(here.id) / "holes").open("wb") as file:
            file.seek(50 * MIB)
            file.write(b"end")
        sent = await held(local, here.id)

        await zone.disks.receive(there.id, local.export(here.id))
        await local.receive(back.id, zone.disks.export(there.id))

        assert await held(local, back.id) == sent
        assert (await local.path(back.id) / "holes").stat().st_blocks * 512 < MIB


async def test_a_process_that_is_killed_in_the_middle_leaves_the_claim_as_it_was(kubernetes: Cluster) -> None:
    spec = msgspec.structs.replace(data_disk(), tenant=TenantId(new_id()))
    before, after = tree(before=b"old"), tree(after=b"new")
    async with open_zone(kubernetes) as zone:
        await zone.disks.create(spec)
        await zone.disks.receive(spec.id, shipped(before))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RECEIVES,
            str(kubernetes.kubeconfig), zone.cluster.installation, spec.id, PORTER,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tree(after=os.urandom(4 * MIB)))
        assert await process.stdout.readline() == b"half\n"

        process.send_signal(signal.SIGKILL)
        await process.wait()

        async with open_zone(kubernetes, zone.cluster.installation) as next_one:
            assert await held(next_one.disks, spec.id) == members(before)
            await next_one.disks.receive(spec.id, shipped(after))
            assert await held(next_one.disks, spec.id) == members(after)

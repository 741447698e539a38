"""Removal of all containers of an instance while no server runs: what `skep down` does."""

import asyncio
import shutil
from pathlib import Path

import msgspec

from skep.agent.launcher import Launcher, forget_secrets
from skep.agent.records import Records
from skep.model.ids import ContainerId
from skep.providers.local.runtime import Runtime


async def teardown(instance: str, data: Path, run: Path) -> int:
    """Kill and delete every container, unmount what was mounted; answer how many there were.

    Data stays: records, configs and logs under `data`, and all disks.  Nothing there is success.

    Raises:
        HostFailure: a process does not die.
    """
    return await asyncio.to_thread(_teardown, instance, data, run)


def _teardown(instance: str, data: Path, run: Path) -> int:
    runtime = Runtime.find(instance=instance, run=run)
    records = Records(data / "containers")
    launcher = Launcher(runtime=runtime, records=records, run=run)
    containers = sorted(launcher.left())
    for container in containers:
        launcher.clear(ContainerId(container))
    for record in list(records.read_all()):
        # As after a reboot: no policy restarts it before reconcilers have made its network and disks again.
        records.write(msgspec.structs.replace(record, boot=""))
    forget_secrets(run)
    for name in ("runc", "exits", "sockets", "containers", "secrets"):
        shutil.rmtree(run / name, ignore_errors=True)
    runtime.cgroups.remove_instance()
    return len(containers)

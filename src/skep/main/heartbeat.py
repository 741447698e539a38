"""The signs of life of a host, however they go to control."""

import asyncio
import os
from typing import Protocol

import structlog

from skep import __version__
from skep.control.liveness import PER_TIMEOUT
from skep.control.ports import Host
from skep.flow import CommitFailed
from skep.model.errors import SkepError
from skep.model.host import HostFacts
from skep.model.ids import Bytes, HostName
from skep.model.topology import HostLoad

log = structlog.get_logger("skep.heartbeat")


class Heartbeat(Protocol):
    """As `Heartbeats.heartbeat` of control."""

    async def __call__(
        self, host: HostName, *, facts: HostFacts | None, version: str | None, load: HostLoad | None
    ) -> bool: ...


async def send_heartbeats(name: HostName, host: Host, tell: Heartbeat, timeout: float) -> None:  # noqa: ASYNC109
    """Ten times in the time after which the host is lost, until cancelled; what goes wrong is tried again."""
    while True:
        try:
            known = await tell(name, facts=host.facts, version=__version__, load=await measure(host))
            if not known:
                log.warning("host.unknown", host=name)
        except (SkepError, CommitFailed) as error:
            log.warning("heartbeat.failed", host=name, error=error.message)
        await asyncio.sleep(timeout / PER_TIMEOUT)


async def measure(host: Host) -> HostLoad:
    """What the host uses now."""
    pool = await host.disks.usage()
    pages, free = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    return HostLoad(
        disk_total=pool.total,
        disk_used=pool.used,
        memory_used=Bytes((pages - free) * os.sysconf("SC_PAGE_SIZE")),
        load=os.getloadavg()[0],
    )

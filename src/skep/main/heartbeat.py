"""The signs of life of a host, however they go to control."""

import asyncio
import os
from collections.abc import Callable

import structlog

from skep import __version__
from skep.control.ports import Host, SignsOfLife
from skep.flow import CommitFailed
from skep.model.errors import SkepError
from skep.model.ids import Bytes, HostName
from skep.model.topology import HostLoad

log = structlog.get_logger("skep.heartbeat")


def ignored(answered: bool) -> None:
    """Nobody wants to know."""


async def send_heartbeats(
    name: HostName,
    host: Host,
    signs: SignsOfLife,
    period: float,
    answered: Callable[[bool], None] = ignored,
) -> None:
    """Every `period` seconds, until cancelled; what goes wrong is tried again.

    `answered` hears of each answer whether the host is known.
    """
    while True:
        try:
            load = await measure(host)
            known = await signs.heartbeat(name, facts=host.facts, version=__version__, load=load)
            if not known:
                log.warning("host.unknown", host=name)
            answered(known)
        except (SkepError, CommitFailed) as error:
            log.warning("heartbeat.failed", host=name, error=error.message)
        await asyncio.sleep(period)


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

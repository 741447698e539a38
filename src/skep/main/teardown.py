"""Takes from the machine what `up` or `agent` made on it."""

import shutil

import structlog

from skep.agent.teardown import teardown as remove_containers
from skep.configuration import Configuration
from skep.main.box import Box
from skep.main.layout import stored_layout
from skep.main.process import alone
from skep.providers.box.underlay import Underlay
from skep.providers.local import disks as pool
from skep.providers.local import edge, network
from skep.providers.local.images import store as image_store

log = structlog.get_logger("skep")


async def tear_down(settings: Configuration, *, purge: bool) -> None:
    """Remove what runs from the machine; with `purge` all data too.  The server must have ended."""
    with alone(settings):
        if (plan := stored_layout(settings)) is not None:
            async with Underlay(settings.instance, settings.box_underlay) as underlay:
                await Box(settings, plan, underlay).tear_down(purge=purge)
        await edge.teardown(settings.instance, settings.data, purge=purge)
        removed = await remove_containers(settings.instance, settings.data, settings.run)
        await image_store.teardown(settings.data / "images", settings.instance, purge=purge)
        await network.teardown(settings.instance, settings.data, purge=purge)
        await pool.teardown(settings.data, settings.data / "pool", purge=purge)
        log.info("skep.down", containers=removed, purged=purge)
    if purge:
        for directory in (settings.data, settings.run):
            shutil.rmtree(directory, ignore_errors=True)
        _forget(settings)


def _forget(settings: Configuration) -> None:
    """What skep wrote beside its configuration.  A key that opens what is in a database elsewhere stays."""
    names = ["admin.token", "authority.pem", *([] if settings.database else ["installation.key"])]
    for name in names:
        (settings.etc / name).unlink(missing_ok=True)
    shutil.rmtree(settings.etc / "agent", ignore_errors=True)

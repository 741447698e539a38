"""Hosts that were away when a subnet joined a network hear of it when they are back.

What a host has is not asked: it keeps what it was told, and telling it again what it knows changes nothing.
So each is told once by every process that reconciles, and again when something joins.
"""

from collections.abc import Collection, Iterable

import structlog

from skep.control.plans.specifications import network_config
from skep.control.ports import Host
from skep.model.errors import SkepError
from skep.model.host import NetworkConfig
from skep.model.ids import HostName, NetworkId
from skep.store.networks import NetworkRow

log = structlog.get_logger("skep.reconciler")


class Widening:
    """One per process."""

    def __init__(self) -> None:
        self._told: dict[tuple[HostName, NetworkId], NetworkConfig] = {}

    async def reconcile(
        self, name: HostName, host: Host, rows: Iterable[NetworkRow], there: Collection[NetworkId]
    ) -> None:
        """Tell the host of the networks that are `there`, where one has more than its first subnet."""
        for config in (network_config(row) for row in rows if row.id in there and row.more):
            if self._told.get((name, config.id)) == config:
                continue
            try:
                await host.fabric.ensure_network(config)
            except SkepError as error:
                log.warning("subnets.untold", host=name, network=config.id, error=error.message)
                continue
            self._told[name, config.id] = config

"""Where the hosts of a zone ask and tell: any worker of the zone serves it."""

from contextlib import AbstractAsyncContextManager

from skep import __version__
from skep.bus.bus import Bus
from skep.bus.methods import Methods
from skep.bus.server import CallServer
from skep.control.ports import ContainerEvents, SignsOfLife, Supplies
from skep.model.ids import ZoneName


def key_of(zone: ZoneName) -> str:
    """The routing key of a zone's workers."""
    return f"worker.{zone}"


def zone_desk(
    bus: Bus, zone: ZoneName, supplies: Supplies, events: ContainerEvents, signs: SignsOfLife
) -> AbstractAsyncContextManager[object]:
    """Serve while entered.  Asking and telling twice is harmless, so nothing is kept of it."""
    methods = Methods(__version__)
    methods.add("supplies", Supplies, supplies)
    methods.add("events", ContainerEvents, events)
    methods.add("hosts", SignsOfLife, signs)
    return CallServer(bus, key_of(zone), methods)

"""A whole host elsewhere.  Satisfies `Host` of control."""

from dataclasses import dataclass
from typing import Self

from skep.bus.client import CallClient
from skep.model.host import HostFacts
from skep.model.ids import HostName
from skep.providers.remote.disks import RemoteDisks
from skep.providers.remote.edge import RemoteEdge
from skep.providers.remote.engine import RemoteEngine
from skep.providers.remote.fabric import RemoteFabric
from skep.providers.remote.images import RemoteImages
from skep.providers.remote.line import Line
from skep.providers.remote.spool import RemoteSpool
from skep.providers.remote.streams import HostStreams


@dataclass(frozen=True)
class RemoteHost:
    """`facts` are those the host had when it joined or was last asked."""

    facts: HostFacts
    engine: RemoteEngine
    disks: RemoteDisks
    fabric: RemoteFabric
    edge: RemoteEdge
    images: RemoteImages
    spool: RemoteSpool

    @classmethod
    def make(cls, name: HostName, facts: HostFacts, calls: CallClient, streams: HostStreams) -> Self:
        """Reaches nobody yet: a host that is away can be made, too."""
        return cls(
            facts=facts,
            engine=RemoteEngine(Line(calls, name, "engine"), streams),
            disks=RemoteDisks(Line(calls, name, "disks"), streams),
            fabric=RemoteFabric(Line(calls, name, "fabric")),
            edge=RemoteEdge(Line(calls, name, "edge")),
            images=RemoteImages(Line(calls, name, "images"), streams),
            spool=RemoteSpool(Line(calls, name, "spool"), streams),
        )


async def facts_of(name: HostName, calls: CallClient) -> HostFacts:
    """Raises Unavailable: the host does not answer."""
    return await calls.ask(f"agent.{name}", "host.facts", HostFacts, {})

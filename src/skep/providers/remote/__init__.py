"""A host elsewhere: control's ports, carried out by the host's agent and asked for over the bus."""

from skep.providers.remote.disks import RemoteDisks
from skep.providers.remote.engine import RemoteEngine
from skep.providers.remote.fabric import RemoteFabric
from skep.providers.remote.host import RemoteHost
from skep.providers.remote.images import RemoteImages
from skep.providers.remote.spool import RemoteSpool

__all__ = ["RemoteDisks", "RemoteEngine", "RemoteFabric", "RemoteHost", "RemoteImages", "RemoteSpool"]

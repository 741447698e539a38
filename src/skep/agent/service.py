"""A host's ports, served on the bus as `agent.<host>` for workers and API processes elsewhere."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from skep import __version__
from skep.agent.contexts import OpenContexts
from skep.agent.receipts import SqliteReceipts
from skep.bus.bus import Bus
from skep.bus.methods import Methods
from skep.bus.server import CallServer
from skep.control.ports import DiskPool, Edge, Engine, Fabric, Host, ImageStore, Spool
from skep.model.host import HostFacts
from skep.model.ids import HostName


class _Contexts(Protocol):
    """The two halves of `ImageStore.context`."""

    async def open_context(self, archive: Path) -> Path: ...

    async def close_context(self, place: Path) -> None: ...


class _About(Protocol):
    """What is asked of a host as a whole."""

    async def facts(self) -> HostFacts: ...


class _OfHost:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def facts(self) -> HostFacts:
        return self._host.facts


def host_methods(host: Host, contexts: OpenContexts, *, version: str = __version__) -> Methods:
    """Everything of a host that fits into a message.  Logs, commands in containers and files are streams."""
    methods = Methods(version)
    methods.add("host", _About, _OfHost(host))
    methods.add("engine", Engine, host.engine, without=["exec"])
    methods.add("disks", DiskPool, host.disks)
    methods.add("fabric", Fabric, host.fabric)
    methods.add("edge", Edge, host.edge)
    methods.add("images", ImageStore, host.images, without=["receive"])
    methods.add("images", _Contexts, contexts)
    methods.add("spool", Spool, host.spool, without=["take"])
    return methods


@asynccontextmanager
async def served_host(bus: Bus, name: HostName, host: Host, receipts: Path) -> AsyncIterator[None]:
    """Serve while entered; `receipts` is the file of what was received.

    What an earlier agent left undone is taken up first.
    """
    async with AsyncExitStack() as stack:
        contexts = await stack.enter_async_context(OpenContexts(host.images))
        kept = await stack.enter_async_context(SqliteReceipts(receipts))
        await stack.enter_async_context(CallServer(bus, f"agent.{name}", host_methods(host, contexts), kept))
        yield

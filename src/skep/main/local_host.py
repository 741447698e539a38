"""The machine this process runs on, as control sees a host."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address

from skep.agent.facts import read_facts
from skep.agent.supervisor import Supervisor
from skep.configuration import Configuration
from skep.control.ports import ContainerEvents, DiskPool, Edge, Engine, Fabric, ImageStore, Spool, Supplies
from skep.main.spool import spool
from skep.model.host import HostFacts
from skep.providers.local import disks as pool
from skep.providers.local.edge import HaproxyEdge, has_ipv6
from skep.providers.local.edge.text import Entrance
from skep.providers.local.images.build_network import BuildNetwork
from skep.providers.local.images.store import OciImages
from skep.providers.local.network.fabric import LocalFabric
from skep.providers.local.network.overlay import Underlay
from skep.providers.local.runtime import Runtime
from skep.providers.local.spool import FolderSpool


@dataclass(frozen=True)
class LocalHost:
    facts: HostFacts
    engine: Engine
    disks: DiskPool
    fabric: Fabric
    edge: Edge
    images: ImageStore
    spool: Spool


async def local_host(
    stack: AsyncExitStack,
    settings: Configuration,
    supplies: Supplies,
    events: ContainerEvents,
    underlay: IPv4Address | None = None,
) -> LocalHost:
    """Everything on the machine is adopted; it goes on when the stack is closed.

    `underlay`: the machine's address on the network between hosts; without one it is the only host.
    """
    runtime = Runtime.find(instance=settings.instance, run=settings.run)
    disks = await stack.enter_async_context(
        pool.BtrfsPool(
            root=settings.data,
            mount=settings.data / "pool",
            device=settings.pool_device,
            size=settings.pool_size,
        )
    )
    images = await stack.enter_async_context(
        OciImages(
            root=settings.data / "images",
            scratch=settings.data / "scratch",
            build_network=_build_network(settings),
            runtime=str(runtime.binary),
            instance=settings.instance,
            insecure=settings.insecure_registries,
        )
    )
    fabric = await stack.enter_async_context(
        LocalFabric(
            instance=settings.instance,
            data=settings.data,
            link_pool=settings.links,
            upstream_dns=settings.dns,
            private=settings.private,
            private6=settings.private6,
            underlay=None if underlay is None else Underlay(underlay),
        )
    )
    engine = await stack.enter_async_context(
        Supervisor(
            instance=settings.instance,
            data=settings.data,
            run=settings.run,
            disks=disks,
            fabric=fabric,
            images=images,
            supplies=supplies,
            events=events,
            runtime=runtime,
        )
    )
    edge = await stack.enter_async_context(
        HaproxyEdge(
            instance=settings.instance,
            data=settings.data,
            ways=fabric.ways,
            entrance=Entrance(http=settings.edge_http, https=settings.edge_https, six=has_ipv6()),
            certify=supplies.certificate,
        )
    )
    facts = read_facts(runtime.cgroups)
    files = FolderSpool(spool(settings))
    return LocalHost(
        facts=facts, engine=engine, disks=disks, fabric=fabric, edge=edge, images=images, spool=files
    )


def _build_network(settings: Configuration) -> BuildNetwork:
    """Builds use the first link of the pool, which no tenant network has: those count from one."""
    link = next(settings.links.subnets(new_prefix=30))
    others = tuple(settings.links.address_exclude(link))
    return BuildNetwork(instance=settings.instance, subnet=link, refused=(*others, *settings.private))

"""A whole simulated host."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skep.model.host import HostFacts
from skep.model.ids import Bytes
from skep.providers.local.spool import FolderSpool
from skep.providers.simulated.disks import LARGE, SimulatedPool
from skep.providers.simulated.edge import SimulatedEdge
from skep.providers.simulated.engine import Events, SimulatedEngine
from skep.providers.simulated.fabric import SimulatedFabric
from skep.providers.simulated.images import SimulatedImages

FACTS = HostFacts(cpus=4, memory=Bytes(16 * 1024**3), kernel="simulated", cgroups="v2", boot_id="simulated")


@dataclass(frozen=True)
class SimulatedHost:
    """Satisfies `Host` of control."""

    facts: HostFacts
    engine: SimulatedEngine
    disks: SimulatedPool
    fabric: SimulatedFabric
    edge: SimulatedEdge
    images: SimulatedImages
    spool: FolderSpool

    @classmethod
    def make(
        cls,
        *,
        facts: HostFacts = FACTS,
        events: Events | None = None,
        spool: Path = Path("/simulated/spool"),
        pool: Bytes = LARGE,
    ) -> Self:
        """A host with nothing on it yet; uploads lie in the folder `spool`, a real one."""
        disks, fabric, images = SimulatedPool(size=pool), SimulatedFabric(), SimulatedImages()
        engine = SimulatedEngine(disks=disks, fabric=fabric, images=images, events=events)
        return cls(
            facts=facts,
            engine=engine,
            disks=disks,
            fabric=fabric,
            edge=SimulatedEdge(),
            images=images,
            spool=FolderSpool(spool),
        )

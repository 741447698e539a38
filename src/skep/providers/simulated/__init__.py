"""A host without a kernel: the same promises as the local one, kept in memory.

For tests of what is built on hosts, and for clouds of many hosts on one machine.  `tests/contracts/` holds
both to the same behaviour.
"""

from skep.providers.simulated.disks import SimulatedPool
from skep.providers.simulated.edge import SimulatedEdge
from skep.providers.simulated.engine import SimulatedEngine
from skep.providers.simulated.fabric import SimulatedFabric
from skep.providers.simulated.host import SimulatedHost
from skep.providers.simulated.images import SimulatedImages

__all__ = [
    "SimulatedEdge",
    "SimulatedEngine",
    "SimulatedFabric",
    "SimulatedHost",
    "SimulatedImages",
    "SimulatedPool",
]

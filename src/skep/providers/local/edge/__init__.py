"""HTTP(S) endpoints of one host, on HAProxy."""

from skep.providers.local.edge.edge import HaproxyEdge
from skep.providers.local.edge.teardown import teardown

__all__ = ["HaproxyEdge", "teardown"]

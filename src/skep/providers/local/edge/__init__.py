"""HTTP(S) endpoints of one host, on HAProxy."""

from skep.providers.local.edge.edge import HaproxyEdge
from skep.providers.local.edge.process import has_ipv6
from skep.providers.local.edge.teardown import teardown

__all__ = ["HaproxyEdge", "has_ipv6", "teardown"]

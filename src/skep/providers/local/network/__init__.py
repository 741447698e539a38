"""The tenant networks of one host: namespaces, bridges, rules against spoofing, names, published ports."""

from skep.providers.local.network.fabric import LocalFabric
from skep.providers.local.network.overlay import Underlay
from skep.providers.local.network.teardown import teardown

__all__ = ["LocalFabric", "Underlay", "teardown"]

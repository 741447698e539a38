"""The real parts under contract are built as their own tests build them."""

from tests.agent.conftest import hive
from tests.bus.broker import broker, key
from tests.providers.images.conftest import images, instance
from tests.providers.network.conftest import world

__all__ = ["broker", "hive", "images", "instance", "key", "world"]

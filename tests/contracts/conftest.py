"""The real parts under contract are built as their own tests build them."""

from tests.agent.conftest import hive
from tests.providers.images.conftest import images, instance
from tests.providers.network.conftest import world

__all__ = ["hive", "images", "instance", "world"]

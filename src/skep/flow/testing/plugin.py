"""Fixtures for pytest: `pytest_plugins = ["skep.flow.testing.plugin"]` in a conftest.py."""

import pytest

from skep.flow.testing.virtual_time import VirtualTime


@pytest.fixture
def virtual() -> VirtualTime:
    """The time of a test that is `in_virtual_time`, or `virtual.run(...)` in one that is not async."""
    return VirtualTime()

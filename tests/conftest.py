"""What all tests share: those that need root are skipped, with the reason, for everybody else."""

import os

import pytest
import structlog
from tests.cluster.kubernetes.shared import kubernetes

__all__ = ["kubernetes"]

# Not to what sys.stdout is just then: a command under test may have put its own there.
structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: it makes real containers, namespaces and mounts")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)

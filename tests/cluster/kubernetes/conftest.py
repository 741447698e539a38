"""The fixtures of tests of the test cluster itself."""

from tests.cluster.kubernetes.shared import kubernetes

__all__ = ["kubernetes"]

"""The cluster that the manifests are for."""

from tests.cluster.kubernetes.shared import kubernetes

__all__ = ["kubernetes"]

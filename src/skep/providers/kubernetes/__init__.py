"""A Kubernetes cluster as one host of its zone."""

from skep.providers.kubernetes.joining.clusters import Clusters

__all__ = ["Clusters"]

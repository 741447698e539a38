"""A Kubernetes cluster: what it offers, and what skep must be allowed to do there."""

from skep.providers.kubernetes.clusters import Clusters

__all__ = ["Clusters"]

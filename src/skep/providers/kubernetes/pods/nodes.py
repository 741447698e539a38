"""Whether a node can be heard of, and what nodes are labelled with.  Pure."""

from lightkube.resources.core_v1 import Node

from skep.providers.kubernetes.client.watching import Watched


def silent(node: Node | None) -> float | None:
    """Since when its kubelet says nothing (seconds since 1970); None: it does, or there is no such node."""
    for one in (node and node.status and node.status.conditions) or ():
        if one.type == "Ready" and one.status == "Unknown":
            return one.lastTransitionTime.timestamp() if one.lastTransitionTime else 0.0
    return None


def label_names(nodes: Watched[Node] | None) -> frozenset[str]:
    """The names of all labels that any of them has."""
    found = (one.metadata.labels for one in (nodes.all() if nodes else ()) if one.metadata)
    return frozenset(name for labels in found for name in labels or ())

"""Whether a node can be heard of.  Pure."""

from lightkube.resources.core_v1 import Node


def silent(node: Node | None) -> float | None:
    """Since when its kubelet says nothing (seconds since 1970); None: it does, or there is no such node."""
    for one in (node and node.status and node.status.conditions) or ():
        if one.type == "Ready" and one.status == "Unknown":
            return one.lastTransitionTime.timestamp() if one.lastTransitionTime else 0.0
    return None

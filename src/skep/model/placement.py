"""What a service may ask of the hosts it is placed on, in the words of Compose and Swarm.

https://github.com/compose-spec/compose-spec/blob/main/deploy.md#placement and
https://docs.docker.com/reference/cli/docker/service/create/#constraint are where the words come from.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from skep.model.errors import InvalidInput

LABEL = "node.labels."
_ATTRIBUTES = frozenset({"node.hostname", "node.id", "node.zone", "node.region", "node.pool"})
_SAME_EVERYWHERE = {
    "node.role": "worker",
    "node.platform.os": "linux",
    "node.platform.arch": "x86_64",
}
_OF_NODES = frozenset({"node.platform.os", "node.platform.arch"})
_NODE_NAME = frozenset({"node.hostname", "node.id"})
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_EXPRESSION = re.compile(r"\s*([A-Za-z0-9._/-]+)\s*(==|!=)\s*(\S(?:.*\S)?)\s*")


class Priority(StrEnum):
    """Who comes first where there is not enough for all: for `high` ones others get less, or end."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Constraint(msgspec.Struct, frozen=True):
    """`node.labels.disk == ssd`.  A label that a host does not have equals nothing."""

    key: str
    operator: Literal["==", "!="]
    value: str

    def allows(self, attributes: Mapping[str, str]) -> bool:
        same = attributes.get(self.key, "") == self.value
        return same if self.operator == "==" else not same

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {self.value}"


def parse_constraint(text: str) -> Constraint:
    """Raises InvalidInput: it is none, or asks for what hosts do not have."""
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text[:80]!r} is no constraint: write it like 'node.labels.disk == ssd'.")
    key, operator, value = found.groups()
    return Constraint(parse_key(key), "==" if operator == "==" else "!=", value)


def parse_key(key: str) -> str:
    """What hosts are told apart by: `node.zone`, `node.labels.rack`, ….  Raises InvalidInput."""
    known = key in _ATTRIBUTES or key in _SAME_EVERYWHERE
    if not known and not (key.startswith(LABEL) and len(key) > len(LABEL)):
        raise InvalidInput(
            f"Hosts have no {key[:80]!r}: use node.hostname, node.zone, node.region, node.pool or "
            "node.labels.NAME."
        )
    return key


def attributes(host: str, zone: str, region: str, pool: str, labels: Mapping[str, str]) -> dict[str, str]:
    """All that constraints and preferences can ask about a host."""
    own = {
        "node.hostname": host,
        "node.id": host,
        "node.zone": zone,
        "node.region": region,
        "node.pool": pool,
    }
    return own | _SAME_EVERYWHERE | {f"{LABEL}{name}": value for name, value in labels.items()}


def left_to_nodes(constraint: Constraint, cluster: Mapping[str, str]) -> bool:
    """Whether each node of a cluster with these attributes is judged by itself, not the cluster as a whole.

    Zone, region, pool and role are the cluster's, and so are its own name and the labels that its operator
    gave it: they hold for all of its nodes.  What no node can be labelled with is left to none.
    """
    if not _labels(constraint):
        return False
    if constraint.key in _NODE_NAME:
        return constraint.value != cluster.get(constraint.key)
    if constraint.key.startswith(LABEL):
        return constraint.key not in cluster
    return constraint.key in _OF_NODES


def tells_nodes_apart(key: str, cluster: Mapping[str, str]) -> bool:
    """Whether replicas in such a cluster can be spread over its values."""
    if key.startswith(LABEL):
        return key not in cluster and _LABEL_KEY.fullmatch(key.removeprefix(LABEL)) is not None
    return key in _NODE_NAME or key in ("node.zone", "node.region", "node.platform.arch")


def _labels(constraint: Constraint) -> bool:
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set"""
    key = constraint.key.removeprefix(LABEL) if constraint.key.startswith(LABEL) else "name"
    return bool(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(constraint.value))

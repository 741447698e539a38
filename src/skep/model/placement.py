"""What a service may ask of the hosts it is placed on, in the words of Compose and Swarm.

https://github.com/compose-spec/compose-spec/blob/main/deploy.md#placement and
https://docs.docker.com/reference/cli/docker/service/create/#constraint are where the words come from.
"""

import re
from collections.abc import Mapping
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
_EXPRESSION = re.compile(r"\s*([A-Za-z0-9._/-]+)\s*(==|!=)\s*(\S(?:.*\S)?)\s*")


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

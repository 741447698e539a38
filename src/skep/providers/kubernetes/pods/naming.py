"""Which object of Kubernetes carries a container, and what it is called.  Pure."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from skep.model.host import ContainerSpec
from skep.model.ids import DiskId, short

_LONGEST = 40
"""Characters of a name before what makes it unique; pods add as many again, and 63 are allowed."""
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_FORM = 2
"""Raised when the same specification is made into another pod: the next release has a carrier of its own."""


class CarrierKind(StrEnum):
    DEPLOYMENT = "Deployment"
    """Replicas of one revision that differ in nothing but their names."""
    STATEFUL_SET = "StatefulSet"
    """Of one: a replica with disks, of which there are never two at a time."""
    POD = "Pod"
    """What is not to run for ever; skep itself starts it again, if its policy says so."""


@dataclass(frozen=True)
class Position:
    """`shop/web-0`: replica 0 of service `web` in app `shop`."""

    app: str
    service: str
    replica: str

    @classmethod
    def of(cls, name: str) -> "Position":
        app, _, replica = name.partition("/")
        return cls(app, replica.rpartition("-")[0] or replica, replica)


def kind_of(spec: ContainerSpec) -> CarrierKind:
    """Kubernetes' own restarts have neither an end nor skep's delays: who wants those is no Deployment."""
    if not spec.restart.endless:
        return CarrierKind.POD
    if any(mount.disk for mount in spec.mounts):
        return CarrierKind.STATEFUL_SET
    return CarrierKind.DEPLOYMENT


def carrier_name(spec: ContainerSpec) -> str:
    """Of a Deployment: the same for all replicas of a revision.  Of a StatefulSet: the replica's for ever."""
    where = Position.of(spec.name)
    match kind_of(spec):
        case CarrierKind.DEPLOYMENT:
            return f"{plain(f'{where.app}-{where.service}')}-{shape_digest(spec)[:8]}"
        case CarrierKind.STATEFUL_SET:
            return f"{plain(f'{where.app}-{where.replica}')}-{short(spec.replica)[-5:]}"
        case CarrierKind.POD:
            return f"{plain(f'{where.app}-{where.replica}')}-{short(spec.id)}"


def spec_digest(spec: ContainerSpec) -> str:
    """Equal for equal specifications; where one may run is no part of it, and its ports say the networks."""
    anywhere = msgspec.structs.replace(spec, placement=None, networks={})
    return _digest(msgspec.json.encode(anywhere, order="sorted", enc_hook=str))


def shape_digest(spec: ContainerSpec) -> str:
    """Equal for containers that differ only in what is the replica's own."""
    where = Position.of(spec.name)
    own = {"id": "", "replica": "", "ports": (), "system_disk": DiskId(""), "nameserver": None}
    hostname = "" if spec.hostname == where.replica else spec.hostname
    shape = msgspec.structs.replace(spec, name=f"{where.app}/{where.service}", hostname=hostname, **own)
    return _digest(msgspec.json.encode((_FORM, shape), order="sorted", enc_hook=str))


def plain(name: str) -> str:
    """As a name of Kubernetes; a name that had to be changed or cut does not become another's."""
    made = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if not made[:1].isalpha():
        made = f"s-{made}"
    if made == name and len(made) <= _LONGEST:
        return made
    return f"{made[: _LONGEST - 7].rstrip('-')}-{_digest(name.encode())[:6]}"


def label_value(name: str) -> str:
    """What Kubernetes takes as the value of a label."""
    return name if _VALUE.fullmatch(name) else plain(name)


def is_hostname(name: str) -> bool:
    return _HOST.fullmatch(name) is not None


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()

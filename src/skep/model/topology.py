"""What a host is to the installation: whether it answers, what its operator wants with it, what it uses."""

from enum import StrEnum
from typing import NewType

import msgspec

from skep.model.ids import Bytes

PoolName = NewType("PoolName", str)

CPU_OVERCOMMIT = 8.0
MEMORY_OVERCOMMIT = 4.0
"""Limits are upper bounds that few replicas reach, so a host may promise more than it has."""


PER_TIMEOUT = 10
"""Looks, and signs of life, in the time after which a host is lost."""


class Liveness(StrEnum):
    """What control sees of a host.  Nobody sets it by hand but for the last."""

    JOINING = "joining"
    """Enrolled; its agent has not been heard of yet."""
    READY = "ready"
    LOST = "lost"
    """Silent for longer than `host_timeout`.  What it runs is unknown, never assumed dead."""
    GONE = "gone"
    """Removed while it was lost; its row stays as long as replicas or disks refer to it."""


class Intent(StrEnum):
    """What the operator wants with a host, whatever it does at the moment."""

    ACTIVE = "active"
    CORDONED = "cordoned"
    """Nothing new is placed on it; what it runs goes on."""
    DRAINING = "draining"
    """Cordoned, and what can go elsewhere goes."""


def shown(liveness: Liveness, intent: Intent) -> str:
    """The one word for both: a host that does not answer says nothing of what is wanted with it."""
    if liveness is Liveness.READY and intent is not Intent.ACTIVE:
        return intent.value
    return liveness.value


class HostLoad(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a host says of itself with each sign of life.  `load`: runnable tasks, averaged over a minute."""

    disk_total: Bytes = Bytes(0)
    disk_used: Bytes = Bytes(0)
    memory_used: Bytes = Bytes(0)
    load: float = 0.0

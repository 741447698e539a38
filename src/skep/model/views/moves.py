"""Moving an app as a whole: what is asked for, and what it would be."""

from typing import Literal

import msgspec

from skep.model.ids import Bytes
from skep.model.views.base import View


class MoveOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To a zone, or back to where the app left its disks.

    `data`: on the way back, whether what was written since goes along (`keep`), or the app has its disks
    again as it left them (`drop`).
    """

    to_zone: str = ""
    back: bool = False
    data: Literal["", "keep", "drop"] = ""


class MovedImage(View, frozen=True, kw_only=True):
    service: str
    image: str
    digest: str
    size: Bytes


class MovedDisk(View, frozen=True, kw_only=True):
    """`used`: what is on it, where that is known.  `copied`: otherwise the app has this one there already."""

    name: str
    size: Bytes
    used: Bytes | None
    source: str
    target: str
    copied: bool


class MovedReplica(View, frozen=True, kw_only=True):
    replica: str
    source: str
    target: str


class MovePlan(View, frozen=True, kw_only=True):
    """What a move would do.  Nothing has been done.

    `stop`: when and for how long nobody serves, in words; "" if somebody always does.
    """

    app: str
    source: tuple[str, ...]
    """The zones where it is."""
    target: tuple[str, ...]
    """Those where it will be."""
    revision: int
    images: tuple[MovedImage, ...]
    disks: tuple[MovedDisk, ...]
    replicas: tuple[MovedReplica, ...]
    stop: str
    warnings: tuple[str, ...] = ()

"""Disks."""

from skep.model.ids import Bytes
from skep.model.views.base import View


class DiskView(View, frozen=True, kw_only=True):
    id: str
    name: str
    kind: str
    size: Bytes
    used: Bytes
    app: str | None
    attached_to: tuple[str, ...]
    host: str
    side: str = ""
    """Of an app that moves: `arriving` is what it will have, `left` what it had, until that is confirmed."""
    created: str

"""Images."""

from skep.model.ids import Bytes
from skep.model.views.base import View


class ImageView(View, frozen=True, kw_only=True):
    id: str
    reference: str
    digest: str
    size: Bytes
    created: str
    tenant: str | None
    """None: shared by the operator with everybody."""
    in_use: bool


class PruneView(View, frozen=True, kw_only=True):
    freed: Bytes

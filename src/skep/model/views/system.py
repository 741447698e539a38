"""The installation itself."""

from skep.model.views.base import View


class VersionView(View, frozen=True, kw_only=True):
    version: str
    api: str = "v1"


class QueueView(View, frozen=True, kw_only=True):
    """`waiting`: messages that are with no server yet.  `servers`: processes that take them."""

    key: str
    waiting: int
    servers: int


class DeadLetterView(View, frozen=True, kw_only=True):
    """A call that was tried too often: to whom, what, and when it was given up."""

    id: str
    key: str
    method: str
    at: str

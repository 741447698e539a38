"""Why a bundle is not taken."""

from collections.abc import Iterable

from skep.flow.errors import FlowFault


class BundleRefused(FlowFault, ValueError):
    """The bundle cannot be used as it is; `reasons` holds everything that was found wrong."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(dict.fromkeys(reasons))
        super().__init__("\n".join(self.reasons))


class NotConfined(BundleRefused):
    """The system does not permit to confine the process of a bundle, and nobody allowed to do without."""


class UnknownBundle(FlowFault, LookupError):
    """There is no bundle of that name or hash."""

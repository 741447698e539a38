"""Errors as they travel between processes, in messages and in streams."""

from typing import Any

import msgspec

from skep.model import errors
from skep.model.errors import HostFailure, SkepError

_KINDS: dict[str, type[SkepError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SkepError)
}
"""Those that every process knows: what is derived of them elsewhere has their codes, and other arguments."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error by its code in `model/errors.py`."""

    code: str
    message: str
    details: dict[str, Any] = {}


def error_of(fault: Fault) -> SkepError:
    """A kind that only a newer release knows is a failure of its host."""
    kind = _KINDS.get(fault.code, HostFailure)
    return kind(fault.message, **fault.details)


def fault_of(error: BaseException) -> Fault:
    """What is no SkepError is a defect of who carried it out."""
    if not isinstance(error, SkepError):
        return Fault(code=HostFailure.code, message=f"internal error: {type(error).__name__}: {error}")
    return Fault(code=error.code, message=error.message, details=error.details)

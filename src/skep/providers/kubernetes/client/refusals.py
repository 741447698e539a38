"""What a cluster says when it does not do what it was asked, in the kinds of errors that skep has.  Pure."""

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from lightkube import ApiError

from skep.model.errors import (
    Conflict,
    Exhausted,
    Forbidden,
    HostFailure,
    InvalidInput,
    NotFound,
    SkepError,
    Unavailable,
)

TOO_MANY, GONE, FORBIDDEN = 429, 410, 403
_LATER = frozenset({408, TOO_MANY, 500, 502, 503, 504})
_FULL = "exceeded quota"
"""How Kubernetes' own quota begins to say no."""
_NO_RIGHT = re.compile(r'User ".*" cannot \w+ (resource|path) ')
"""How RBAC says no; admission has other words."""
_REMEDY = "An older release of skep asked for fewer rights: skep cluster rights | kubectl apply -f -"


class Gone(Unavailable):
    """The version that a list or a watch was to go on from is no longer kept."""


def passes(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, httpx2.HTTPStatusError):
        return status(error) in _LATER
    return isinstance(error, httpx2.TransportError)


def pause(error: Exception, now: float) -> float | None:
    """The seconds for which the cluster asks to be left alone; None: it does not say."""
    response = getattr(error, "response", None) if isinstance(error, httpx2.HTTPStatusError) else None
    said = response.headers.get("Retry-After", "") if response is not None else ""
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now)
    except ValueError:
        return None


def unread(error: Exception) -> Exception:
    """The error as it came: lightkube trips over those without a document, as proxies send them."""
    cause = error.__context__
    return cause if isinstance(cause, httpx2.HTTPStatusError) else error


def translated(error: Exception, what: str) -> SkepError:
    """`what` was asked: `apply Deployment web in skep-x`."""
    if not isinstance(error, httpx2.HTTPStatusError):
        return Unavailable(f"The cluster does not answer ({what}): {str(error) or type(error).__name__}")
    code, words = status(error), _words(error)
    if code == GONE:
        return Gone(f"{what}: {words}")
    if code in _LATER:
        return Unavailable(f"The cluster does not do it now ({what}): {words}")
    return _final(error, code, words, what)


def forbidden(error: Exception | None) -> bool:
    """Whether it is a right that is missing, which somebody may give at any time."""
    return isinstance(error, httpx2.HTTPStatusError) and status(error) == FORBIDDEN


def status(error: httpx2.HTTPStatusError) -> int:
    """An error that came within a watch has no response of its own."""
    if isinstance(error, ApiError) and error.status.code:
        return error.status.code
    return error.response.status_code


def managers(error: ApiError) -> dict[str, str]:
    """Fields that others have, with their managers, from the answer to a server-side apply."""
    details = error.status.details
    causes: Iterable[Any] = (details and details.causes) or ()
    return {
        cause.field or "": (cause.message or "").partition('"')[2].partition('"')[0]
        for cause in causes
        if cause.reason == "FieldManagerConflict"
    }


def _final(error: httpx2.HTTPStatusError, code: int, words: str, what: str) -> SkepError:
    match code:
        case 401:
            return Forbidden(
                f"The cluster does not know who the kubeconfig says ({what}): {words}. Has its token ended? "
                "An operator gives the zone another one: skep zone set ZONE --kubeconfig FILE"
            )
        case 403 if _FULL in words:
            return Exhausted(f"{what}: {words}")
        case 403:
            remedy = f". {_REMEDY}" if _NO_RIGHT.search(words) else ""
            return Forbidden(f"The cluster does not allow it ({what}): {words}{remedy}")
        case 404:
            return NotFound(f"{what}: {words}")
        case 409:
            return _conflict(error, words, what)
        case 400 | 422:
            return InvalidInput(f"The cluster refuses it ({what}): {words}")
        case _:
            return HostFailure(f"{what}: {words}")


def _conflict(error: httpx2.HTTPStatusError, words: str, what: str) -> Conflict:
    held = managers(error) if isinstance(error, ApiError) else {}
    if not held:
        return Conflict(f"{what}: {words}")
    said = ", ".join(f"{field} ({manager})" for field, manager in held.items())
    return Conflict(f"{what}: others manage {said}.", managers=held)


def _words(error: httpx2.HTTPStatusError) -> str:
    if isinstance(error, ApiError):
        return error.status.message or error.status.reason or str(error.status.code)
    return f"{error.response.status_code} {error.response.reason_phrase}"

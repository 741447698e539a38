"""The one table from what went wrong to an HTTP status, and the problem documents that say so (RFC 9457).

Messages of a SkepError are written for the caller and are sent as they are.  Anything else is a defect: it
goes to the log with a request id, and the caller gets the id only.
"""

import secrets
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from skep.api.patience import PATIENCE, database_is_away
from skep.flow import CommitFailed, Fenced
from skep.flow.storage import effects
from skep.flow.storage.refusals import is_away, is_conflict
from skep.model.errors import (
    Conflict,
    Exhausted,
    Forbidden,
    HostFailure,
    InvalidInput,
    NotFound,
    SkepError,
    Stale,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"

STATUS: dict[type[SkepError], HTTPStatus] = {
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unsupported: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Stale: HTTPStatus.CONFLICT,
    Exhausted: HTTPStatus.CONFLICT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    HostFailure: HTTPStatus.BAD_GATEWAY,
}

_CODE_BY_STATUS = {
    HTTPStatus.BAD_REQUEST: InvalidInput.code,
    HTTPStatus.UNAUTHORIZED: Unauthenticated.code,
    HTTPStatus.FORBIDDEN: Forbidden.code,
    HTTPStatus.NOT_FOUND: NotFound.code,
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
}

_HEADERS: dict[HTTPStatus, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "2"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "5"},
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong, as RFC 9457 describes it.

    `code` is stable and meant for programs; `detail` is meant for people and says what to do.
    `errors` names the fields of a body that was refused; `request_id` finds a defect in the server's log.
    """

    title: str
    status: int
    code: str
    detail: str
    type: str = "about:blank"
    errors: tuple[str, ...] = ()
    request_id: str = ""
    details: dict[str, Any] = {}


class TooLarge(SkepError):
    """The body is larger than this endpoint takes."""

    code = "too-large"


class TooMany(SkepError):
    """There were too many such requests from your address: wait a moment."""

    code = "too-many"


STATUS[TooLarge] = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
STATUS[TooMany] = HTTPStatus.TOO_MANY_REQUESTS


def status_of(error: SkepError) -> HTTPStatus:
    """The status of the nearest kind in the table; a bare SkepError is a defect of ours."""
    known = (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return next(known, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of(error: BaseException) -> Problem:
    """Describe any error; one that is not the caller's is logged here and loses its text."""
    if isinstance(error, SkepError):
        return _problem(status_of(error), error.code, error.message, details=_plain(error.details))
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _refused(error)
    if isinstance(error, CommitFailed) and effects.current().done:
        return problem_of(Unavailable(f"Look whether it was done, for {error.message}."))
    if isinstance(error, CommitFailed):
        return problem_of(Unavailable(f"Nothing was changed, for {error.message}. The operator can help."))
    if isinstance(error, Fenced):  # it has begun anew by now
        return problem_of(Unavailable("This process was held for dead, and nothing was changed: try again."))
    if isinstance(error, RecursionError):  # only a decoder meets one, in a body made for that
        return problem_of(InvalidInput("The body is nested too deeply."))
    request = secrets.token_hex(8)
    log.error("api.defect", request_id=request, exc_info=error)
    detail = f"Internal error. The operator finds it in the log of skep under request id {request}."
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail, request_id=request)


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Litestar's exception handler for everything."""
    away_for = error.away_for if isinstance(error, CommitFailed) else 0.0
    if isinstance(error, CommitFailed | Fenced) and away_for <= PATIENCE and _may_pass(error.__cause__):
        database_is_away(request.scope)
    problem = problem_of(error)
    headers = _HEADERS.get(HTTPStatus(problem.status), {})
    return Response(problem, status_code=problem.status, media_type=PROBLEM_JSON, headers=headers)


def _may_pass(cause: BaseException | None) -> bool:
    """In a moment, as a restart does; a full disk does not."""
    return cause is None or is_away(cause) or is_conflict(cause)


def _refused(error: HTTPException) -> Problem:
    """A request that Litestar itself refused: no such route, a body or parameter of the wrong shape."""
    status = HTTPStatus(error.status_code)
    fields = tuple(_field(item) for item in error.extra) if isinstance(error.extra, list) else ()
    if status is HTTPStatus.BAD_REQUEST:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = _CODE_BY_STATUS.get(HTTPStatus(error.status_code), InvalidInput.code)
    detail = "; ".join(fields) or error.detail or status.phrase
    return _problem(status, code, detail, errors=fields)


def _field(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    where, message = item.get("key"), item.get("message", "")
    return f"{where}: {message}" if where else str(message)


def _problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    errors: tuple[str, ...] = (),
    request_id: str = "",
    details: dict[str, Any] | None = None,
) -> Problem:
    return Problem(
        type=f"urn:skep:problem:{code}",
        title=status.phrase,
        status=status.value,
        code=code,
        detail=detail,
        errors=errors,
        request_id=request_id,
        details=details or {},
    )


def _plain(details: dict[str, object]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(details, str_keys=True, enc_hook=str)
    return plain

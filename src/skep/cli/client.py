"""The API as the commands see it: typed answers, and errors that end the command."""

import base64
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from skep.cli.failures import Exit, Failure, from_problem, unreachable
from skep.cli.http import httpx
from skep.cli.settings import Context
from skep.cli.trust import UNTRUSTED, tls, untrusted
from skep.model.images import BuildSpec
from skep.model.views.runs import RunEventView

T = TypeVar("T")

_TIMEOUT = httpx.Timeout(30, connect=5)
_UPLOAD_TIMEOUT = httpx.Timeout(300, connect=5)
_STREAM_TIMEOUT = httpx.Timeout(None, connect=5, read=60)
"""A stream is never silent for more than the 15 seconds between two keep-alives."""
RECONNECT_FOR = 30.0
"""Seconds for which a follower looks for a server that went away (a restart takes three)."""

Body = msgspec.Struct | Mapping[str, Any]


class _Problem(msgspec.Struct):
    detail: str = ""
    code: str = ""


class Client:
    """Blocking calls; one connection is kept open."""

    def __init__(self, context: Context, reconnect_for: float = RECONNECT_FOR) -> None:
        self.context = context
        self._reconnect_for = reconnect_for
        with self._reaching():
            self._http = httpx.Client(
                base_url=context.url,
                headers=headers(context),
                timeout=_TIMEOUT,
                trust_env=False,
                verify=tls(context) or False,
            )
        weakref.finalize(self, self._http.close)

    def get(self, path: str, kind: type[T], **query: object) -> T:
        return self._call("GET", path, kind, query)

    def text(self, path: str, **query: object) -> str:
        """An answer that is no JSON, such as a picture."""
        with self._reaching():
            answer = self._http.get(path, params=_plain(query))
        _check(answer)
        return answer.text

    def post(self, path: str, kind: type[T], body: Body | None = None, **query: object) -> T:
        content = None if body is None else msgspec.json.encode(body)
        return self._call("POST", path, kind, query, content)

    def put(self, path: str, kind: type[T], body: Body | None = None, **query: object) -> T:
        content = None if body is None else msgspec.json.encode(body)
        return self._call("PUT", path, kind, query, content)

    def patch(self, path: str, kind: type[T], body: Body) -> T:
        return self._call("PATCH", path, kind, {}, msgspec.json.encode(body))

    def delete(self, path: str, kind: type[T], **query: object) -> T:
        return self._call("DELETE", path, kind, query)

    def act(self, method: str, path: str, body: Body | None = None, **query: object) -> None:
        """A request whose answer has nothing to say."""
        self._call(method, path, type(None), query, None if body is None else msgspec.json.encode(body))

    def upload(
        self,
        path: str,
        kind: type[T],
        content: Iterator[bytes],
        build: BuildSpec | None = None,
        **query: object,
    ) -> T:
        """POST a stream of bytes."""
        extra = {"Content-Type": "application/octet-stream"}
        if build is not None:
            extra["X-Skep-Build"] = base64.urlsafe_b64encode(msgspec.json.encode(build)).decode()
        with self._reaching():
            answer = self._http.post(
                path, params=_plain(query), content=content, headers=extra, timeout=_UPLOAD_TIMEOUT
            )
        return _decode(answer, kind)

    def download(self, path: str, **query: object) -> Iterator[bytes]:
        """An answer of bytes, block by block."""
        with (
            self._reaching(),
            self._http.stream("GET", path, params=_plain(query), timeout=_STREAM_TIMEOUT) as answer,
        ):
            _check(answer)
            yield from answer.iter_bytes()

    def lines(self, path: str, kind: type[T], **query: object) -> Iterator[T]:
        """An NDJSON answer, object by object."""
        with (
            self._reaching(),
            self._http.stream("GET", path, params=_plain(query), timeout=_STREAM_TIMEOUT) as answer,
        ):
            _check(answer)
            for line in answer.iter_lines():
                yield _decode_line(line, kind)

    def stream(self, path: str, kind: type[T], **query: object) -> Iterator[T]:
        """Server-sent events until the server says that there are no more."""
        with self._reaching():
            for _, data in self._events(path, query, ""):
                yield msgspec.json.decode(data, type=kind)

    def run_events(self, run: str) -> Iterator[RunEventView]:
        """A run from its beginning to its end; takes up the thread again after a restart of the server."""
        last, lost_at = 0, 0.0
        while True:
            try:
                for _, data in self._events(f"/v1/runs/{run}/events", {}, str(last)):
                    event = msgspec.json.decode(data, type=RunEventView)
                    last, lost_at = event.sequence, 0.0
                    yield event
                return
            except httpx.TransportError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._reconnect_for:
                    raise unreachable(self.context.url, str(error)) from error
                time.sleep(0.3)

    def _events(self, path: str, query: Mapping[str, object], last: str) -> Iterator[tuple[str, str]]:
        from httpx_sse import EventSource

        extra = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        with self._http.stream(
            "GET", path, params=_plain(query), headers=extra, timeout=_STREAM_TIMEOUT
        ) as answer:
            _check(answer)
            for event in EventSource(answer).iter_sse():
                if event.event == "end":
                    return
                if event.event == "error":
                    raise problem_failure(event.data)
                if event.data:  # a comment that keeps the stream alive comes without
                    yield event.event, event.data
        raise httpx.RemoteProtocolError("the stream ended early")

    def _call(
        self, method: str, path: str, kind: type[T], query: Mapping[str, object], content: bytes | None = None
    ) -> T:
        with self._reaching():
            answer = self._http.request(
                method,
                path,
                params=_plain(query),
                content=content,
                headers={"Content-Type": "application/json"} if content is not None else None,
            )
        return _decode(answer, kind)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as error:
            raise Failure(f"{self.context.url!r} is no URL: {error}", Exit.INVALID) from error
        except httpx.UnsupportedProtocol as error:
            raise Failure(f"{self.context.url!r} is no http:// or https:// URL.", Exit.INVALID) from error
        except httpx.TransportError as error:
            if UNTRUSTED in str(error):
                raise untrusted(self.context.url, str(error)) from error
            raise unreachable(self.context.url, str(error)) from error


def headers(context: Context) -> dict[str, str]:
    """Who asks, for HTTP and WebSocket alike.

    Raises:
        Failure: the token cannot be sent in a header.
    """
    if not (context.token.isascii() and context.token.isprintable()):
        raise Failure("The token has characters that no token has.", Exit.AUTH)
    found = {"Authorization": f"Bearer {context.token}"} if context.token else {}
    return found | ({"X-Skep-Tenant": context.tenant} if context.tenant else {})


def _decode(answer: httpx.Response, kind: type[T]) -> T:
    _check(answer)
    try:
        return msgspec.json.decode(answer.content or b"null", type=kind)
    except msgspec.MsgspecError as error:
        raise Failure(f"What answers at {answer.url} is not skep: {error}", hint="Check --url.") from error


def _decode_line(line: str, kind: type[T]) -> T:
    if line.startswith('{"error":'):
        raise problem_failure(msgspec.json.encode(msgspec.json.decode(line)["error"]))
    return msgspec.json.decode(line, type=kind)


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    raise problem_failure(answer.read(), f"{answer.status_code} {answer.reason_phrase}")


def problem_failure(content: bytes | str, otherwise: str = "") -> Failure:
    """The failure for the body of an answer that is a problem document, or should have been one."""
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem()
    if not problem.code:
        return Failure(
            f"The server answered {otherwise or 'nonsense'}.", hint="Is the URL that of a skep server?"
        )
    return from_problem(problem.code, problem.detail)


def _plain(query: Mapping[str, object]) -> dict[str, str]:
    """Query parameters as text; None is left out."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in query.items()
        if value is not None and value is not False
    }

"""The API as the commands see it: typed answers, and errors that end the command."""

import base64
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from skep.cli.connection import Answer, NoUrl, Server, TransportError
from skep.cli.failures import Exit, Failure, from_problem, unreachable
from skep.cli.settings import Context
from skep.cli.trust import UNTRUSTED, tls, untrusted
from skep.model.images import BuildSpec
from skep.model.views.runs import RunEventView

T = TypeVar("T")

_TIMEOUT = 30.0
_UPLOAD_TIMEOUT = 300.0
_STREAM_TIMEOUT = 60.0
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
            self._server = Server(context.url, headers(context), tls(context))
        weakref.finalize(self, self._server.close)

    def get(self, path: str, kind: type[T], **query: object) -> T:
        return self._call("GET", path, kind, query)

    def text(self, path: str, **query: object) -> str:
        """An answer that is no JSON, such as a picture."""
        with self._reaching():
            answer = self._ask("GET", path, query)
            _check(answer)
            return answer.read().decode(errors="replace")

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
            return _decode(self._ask("POST", path, query, extra, content, _UPLOAD_TIMEOUT), kind)

    def download(self, path: str, **query: object) -> Iterator[bytes]:
        """An answer of bytes, block by block."""
        with self._reaching():
            answer = self._ask("GET", path, query, timeout=_STREAM_TIMEOUT)
            _check(answer)
            yield from answer.blocks()

    def lines(self, path: str, kind: type[T], **query: object) -> Iterator[T]:
        """An NDJSON answer, object by object."""
        with self._reaching():
            answer = self._ask("GET", path, query, timeout=_STREAM_TIMEOUT)
            _check(answer)
            for line in answer.lines():
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
            except TransportError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._reconnect_for:
                    raise unreachable(self.context.url, str(error)) from error
                time.sleep(0.3)

    def _events(self, path: str, query: Mapping[str, object], last: str) -> Iterator[tuple[str, str]]:
        extra = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        answer = self._ask("GET", path, query, extra, timeout=_STREAM_TIMEOUT)
        _check(answer)
        for kind, data in answer.events():
            if kind == "end":
                return
            if kind == "error":
                raise problem_failure(data)
            if data:
                yield kind, data
        raise TransportError("the stream ended early")

    def _call(
        self, method: str, path: str, kind: type[T], query: Mapping[str, object], content: bytes | None = None
    ) -> T:
        extra = {"Content-Type": "application/json"} if content is not None else {}
        with self._reaching():
            return _decode(self._ask(method, path, query, extra, content), kind)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        extra: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
        timeout: float = _TIMEOUT,
    ) -> Answer:
        return self._server.ask(method, path, _plain(query), extra or {}, content, timeout)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except NoUrl as error:
            raise Failure(str(error), Exit.INVALID) from error
        except TransportError as error:
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


def _decode(answer: Answer, kind: type[T]) -> T:
    _check(answer)
    content = answer.read()
    try:
        return msgspec.json.decode(content or b"null", type=kind)
    except msgspec.MsgspecError as error:
        raise Failure(f"What answers at {answer.url} is not skep: {error}", hint="Check --url.") from error


def _decode_line(line: bytes, kind: type[T]) -> T:
    if line.startswith(b'{"error":'):
        raise problem_failure(msgspec.json.encode(msgspec.json.decode(line)["error"]))
    return msgspec.json.decode(line, type=kind)


def _check(answer: Answer) -> None:
    if answer.is_success:
        return
    raise problem_failure(answer.read(), f"{answer.status} {answer.reason}")


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

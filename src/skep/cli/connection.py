"""HTTP/1.1 as commands need it: a connection that is kept, bodies that stream both ways, an own authority.

It stands on the client of the standard library because a command is short: httpx takes longer to import than
most commands take to be answered, and what it adds none of them uses (HTTP/2, proxies, cookies, redirects).
"""

import select
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, InvalidURL
from urllib.parse import quote, urlencode, urlsplit

from skep import __version__

CONNECT_TIMEOUT = 5.0
_BLOCK = 65_536


class NoUrl(ValueError):
    """The address of the server is none."""


class TransportError(Exception):
    """No whole answer came: the server is not there, is not to be believed, or went away."""


class Server:
    """One server over HTTP.

    A connection whose answer was read to its end is kept for the next request; who asks while reading another
    answer gets a connection of its own.
    """

    def __init__(self, url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        """Raises NoUrl."""
        self._headers = {"Accept": "*/*", "User-Agent": f"skep/{__version__}", **headers}
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        self._kept: HTTPConnection | None = None
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
            self._new()
        except (ValueError, InvalidURL) as error:
            raise NoUrl(f"{url!r} is no URL: {error}") from error
        if parts.scheme not in ("http", "https"):
            raise NoUrl(f"{url!r} is no http:// or https:// URL.")
        if not self._host:
            raise NoUrl(f"{url!r} is no URL: it names no host")
        self._address = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
        timeout: float,
    ) -> "Answer":
        """Send a request and wait for the head of its answer; no byte may be `timeout` seconds late.

        Raises:
            TransportError: there is no answer.
        """
        target = self._prefix + quote(path, safe="/%:@!$&'()*+,;=~") + ("?" if query else "")
        target += urlencode(query, quote_via=quote)
        connection = self._connection(timeout)
        try:
            with _translated():
                _send_head(connection, method, target, self._headers | dict(headers), content)
            _send_body(connection, content)
            with _translated():
                return Answer(self, connection, connection.getresponse(), self._address + target)
        except BaseException:
            connection.close()
            raise

    def keep(self, connection: HTTPConnection) -> None:
        """One is enough."""
        if self._kept is None and connection.sock is not None:
            self._kept = connection
        else:
            connection.close()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connection(self, timeout: float) -> HTTPConnection:
        connection, self._kept = self._kept, None
        if connection is not None and _ended(connection):
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect()
        connection.sock.settimeout(timeout)
        return connection

    def _connect(self) -> HTTPConnection:
        connection = self._new()
        try:
            with _translated():
                connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _new(self) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT)
        return HTTPSConnection(self._host, self._port, timeout=CONNECT_TIMEOUT, context=self._tls)


class Answer:
    """The head of an answer, and its body once: as a whole, or block by block as it comes."""

    def __init__(self, server: Server, connection: HTTPConnection, response: HTTPResponse, url: str) -> None:
        self.status, self.reason, self.url = response.status, response.reason, url
        self.kind = response.headers.get_content_type()
        self._server, self._connection, self._response = server, connection, response

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def read(self) -> bytes:
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """Raises TransportError: the body ends early."""
        whole = False
        try:
            with _translated():
                while block := self._response.read1(_BLOCK):
                    yield block
            if self._response.length:
                raise TransportError("the server closed the connection in the middle of its answer")
            whole = True
        finally:
            self._response.close()
            if whole and not self._response.will_close:
                self._server.keep(self._connection)
            else:
                self._connection.close()

    def lines(self) -> Iterator[bytes]:
        """Without their ends."""
        rest = b""
        for block in self.blocks():
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r")
        if rest:
            yield rest

    def events(self) -> Iterator[tuple[str, str]]:
        """Server-sent events: kind and data.  A comment that keeps the stream alive is none.

        https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
        """
        if self.kind != "text/event-stream":
            raise TransportError(f"a stream of events was asked for, and the answer is {self.kind}")
        kind, data = "message", list[str]()
        for line in self.lines():
            name, _, value = line.decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif not line:
                if data or kind != "message":
                    yield kind, "\n".join(data)
                kind, data = "message", []


def _send_head(
    connection: HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    content: bytes | Iterable[bytes] | None,
) -> None:
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if isinstance(content, bytes):
        connection.putheader("Content-Length", str(len(content)))
    elif content is not None:
        connection.putheader("Transfer-Encoding", "chunked")
    elif method in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", "0")
    connection.endheaders()


def _send_body(connection: HTTPConnection, content: bytes | Iterable[bytes] | None) -> None:
    """What fails in reading the content is not the server's: it is raised as it is."""
    if content is None:
        return
    # A server may refuse a body before it has come to its end: then its answer says why.
    with suppress(BrokenPipeError, ConnectionResetError):
        if isinstance(content, bytes):
            _send(connection, content)
            return
        for block in filter(None, content):
            _send(connection, b"%x\r\n%b\r\n" % (len(block), block))
        _send(connection, b"0\r\n\r\n")


def _send(connection: HTTPConnection, data: bytes) -> None:
    try:
        connection.send(data)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except OSError as error:
        raise TransportError(str(error)) from error


@contextmanager
def _translated() -> Iterator[None]:
    """Whatever keeps an answer from coming is a TransportError."""
    try:
        yield
    except (OSError, HTTPException) as error:
        raise TransportError(str(error) or type(error).__name__) from error


def _ended(connection: HTTPConnection) -> bool:
    """Whether the other side has closed a connection that nothing is expected from."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))

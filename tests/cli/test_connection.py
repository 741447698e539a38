"""How commands speak HTTP, against servers that say exactly what the test has them say."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from skep.cli.connection import Answer, NoUrl, Server, TransportError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"

Talk = Callable[[socket.socket], None]


@contextmanager
def serving(*talks: Talk) -> Iterator[str]:
    """A server that has one of the talks with each connection in turn, and hangs up."""
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            try:
                for talk in talks:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(20)
                        talk(connection)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(30)
    assert not failures


def heard(connection: socket.socket, end: bytes = b"\r\n\r\n") -> bytes:
    data = b""
    while not data.endswith(end):
        data += connection.recv(65_536) or pytest.fail(f"no {end!r} came: {data!r}")
    return data


def answering(*answers: bytes) -> Talk:
    def talk(connection: socket.socket) -> None:
        for answer in answers:
            heard(connection)
            connection.sendall(answer)

    return talk


@contextmanager
def asking(url: str) -> Iterator[Callable[..., Answer]]:
    server = Server(url, {"Authorization": "Bearer x"}, None)

    def ask(method: str = "GET", path: str = "/", content: object = None) -> Answer:
        return server.ask(method, path, {}, {}, content, 20)  # type: ignore[arg-type]

    try:
        yield ask
    finally:
        server.close()


def test_a_connection_is_kept_for_the_next_request() -> None:
    with serving(answering(OK, OK)) as url, asking(url) as ask:
        first, second = ask().read(), ask().read()

    assert (first, second) == (b"ok", b"ok")


def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    with serving(answering(OK), answering(OK)) as url, asking(url) as ask:
        first, second = ask().read(), ask().read()

    assert (first, second) == (b"ok", b"ok")


def test_while_one_answer_is_read_another_can_be_asked_for() -> None:
    half = threading.Event()

    def slowly(connection: socket.socket) -> None:
        heard(connection)
        connection.sendall(STREAM + b"event: a\ndata: 1\n\n")
        threading.Thread(target=rest, args=(connection.dup(),)).start()

    def rest(connection: socket.socket) -> None:
        with connection:
            half.wait(20)
            connection.sendall(b"event: b\ndata: 2\n\n")

    with serving(slowly, answering(OK)) as url, asking(url) as ask:
        events = ask().events()
        found: list[object] = [next(events), ask().read()]
        half.set()
        found += events

    assert found == [("a", "1"), b"ok", ("b", "2")]


def test_events_have_kinds_several_lines_and_comments_between() -> None:
    said = b": alive\r\n\r\ndata: a\r\ndata: b\r\n\r\nevent:end\n\ndata: cut off"
    with serving(answering(STREAM + said)) as url, asking(url) as ask:
        events = list(ask().events())

    assert events == [("message", "a\nb"), ("end", "")]


def test_what_is_no_stream_of_events_is_not_read_as_one() -> None:
    with serving(answering(OK)) as url, asking(url) as ask:
        answer = ask()
        with pytest.raises(TransportError, match="text/plain"):
            next(answer.events())
        answer.read()


def test_lines_come_whole_whatever_blocks_they_come_in() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    blocks = head + b'2\r\n{}\r\n4\r\n\n{"a\r\n5\r\n":1}\n\r\n0\r\n\r\n'
    with serving(answering(blocks)) as url, asking(url) as ask:
        lines = list(ask().lines())

    assert lines == [b"{}", b'{"a":1}']


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["nothing", "short", "in a chunk", "between chunks", "not HTTP"],
)
def test_an_answer_that_is_not_whole_is_none(answer: bytes) -> None:
    with serving(answering(answer)) as url, asking(url) as ask, pytest.raises(TransportError):
        ask().read()


def test_a_body_is_sent_as_it_is_made() -> None:
    said: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        said.append(heard(connection, b"0\r\n\r\n"))
        connection.sendall(OK)

    with serving(talk) as url, asking(url) as ask:
        ask("POST", "/v1/a b", iter([b"abc", b"", b"de"])).read()

    assert said[0].startswith(b"POST /v1/a%20b HTTP/1.1\r\n")
    assert said[0].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_who_refuses_a_body_before_its_end_is_heard() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def talk(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(refusal)
        connection.shutdown(socket.SHUT_RDWR)
        while connection.recv(65_536):
            pass

    with serving(talk) as url, asking(url) as ask:
        answer = ask("POST", "/", (b"x" * 65_536 for _ in range(200)))

    assert (answer.status, answer.is_success) == (413, False)


def test_a_fault_in_making_the_body_is_not_the_servers() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"x"
        raise FileNotFoundError("gone")

    def talk(connection: socket.socket) -> None:
        heard(connection, b"x\r\n")

    with (
        serving(talk) as url,
        asking(url) as ask,
        pytest.raises(FileNotFoundError),
    ):
        ask("POST", "/", blocks())


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host", "http://", "http://h:port", "http://h:99999", "//h"]
)
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(NoUrl, match=url):
        Server(url, {}, None)


def test_paths_are_below_the_one_of_the_url() -> None:
    said: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        said.append(heard(connection))
        connection.sendall(OK)

    with serving(talk) as url:
        server = Server(f"{url}/skep/", {}, None)
        server.ask("GET", "/v1/apps", {"name": "a b&ö"}, {}, None, 20).read()
        server.close()

    assert said[0].startswith(b"GET /skep/v1/apps?name=a%20b%26%C3%B6 HTTP/1.1\r\n")

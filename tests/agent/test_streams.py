"""Who gets at the streams of a host, and what becomes of them when one side goes away."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from tests.agent.conftest import until
from tests.contracts.remote import NAME, Parts
from tests.trust.conftest import enrol

from skep.agent.streams import build_streams, served_streams
from skep.model.errors import InvalidInput, NotFound, Unavailable
from skep.model.host import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, LogLine
from skep.model.ids import ContainerId
from skep.providers.remote.streams import HostStreams
from skep.trust.authority import Authority
from skep.trust.contexts import Expectation
from skep.trust.peers import Role

ONE = ContainerId("one")
AUTHORITY = Authority.make("inst1", time.time())
CONTROL = (Expectation(Role.WORKER), Expectation(Role.SERVE))


class Cat:
    """An exec session that answers with what it gets, in capitals."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.size = (0, 0)
        self.closed = False

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (data := await self.heard.get()) is not None:
            yield 1, data.upper()
        yield 2, b"bye"

    async def write(self, data: bytes) -> None:
        self.heard.put_nowait(data)

    async def close_stdin(self) -> None:
        self.heard.put_nowait(None)

    async def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)

    async def wait(self) -> int:
        return 7

    async def close(self) -> None:
        self.closed = True


class Engine:
    """Of an engine, what streams need: one container with an endless log."""

    def __init__(self) -> None:
        self.sessions: list[Cat] = []
        self.reading = 0

    async def logs(
        self,
        container: ContainerId,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        if container != ONE:
            raise NotFound("There is no such container.")
        self.reading += 1
        try:
            for number in range(tail or 3):
                yield LogLine(time=since or "now", stream="stdout", text=f"line {number}")
            if follow:
                await asyncio.Event().wait()
        finally:
            self.reading -= 1

    async def exec(self, container: ContainerId, spec: ExecSpec) -> Cat:
        if spec.args == ("defect",):
            raise ZeroDivisionError("nothing by nothing")
        self.sessions.append(Cat())
        return self.sessions[-1]

    async def start(self, spec: ContainerSpec) -> None: ...

    async def stop(self, container: ContainerId, grace: float | None = None) -> None: ...

    async def restart(self, container: ContainerId) -> None: ...

    async def remove(self, container: ContainerId) -> None: ...

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        raise NotFound

    async def list(self) -> list[ContainerStatus]:
        return []

    async def wait_ready(self, container: ContainerId) -> None: ...

    async def wait_exit(self, container: ContainerId) -> int:
        return 0

    async def usage(self, container: ContainerId) -> ContainerUsage:
        raise NotFound

    async def connections(self, container: ContainerId) -> int:
        return 0


Connect = Callable[..., HostStreams]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@asynccontextmanager
async def served(engine: Engine, folder: Path) -> AsyncIterator[str]:
    """Answers the address."""
    identity = enrol(AUTHORITY, folder / "agent", Role.AGENT, NAME)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = build_streams(Parts(engine=engine), folder)
        async with served_streams(app, listener, identity.server_context(*CONTROL)):
            yield f"127.0.0.1:{listener.getsockname()[1]}"


def tls_of(folder: Path, role: Role, expected: str = NAME, of: Authority = AUTHORITY) -> ssl.SSLContext:
    identity = enrol(of, folder / f"{role}-{of.fingerprint[-6:]}", role, "asker")
    return identity.client_context(Expectation(Role.AGENT, expected))


@pytest.fixture
async def streams(engine: Engine, tmp_path: Path) -> AsyncIterator[HostStreams]:
    async with (
        served(engine, tmp_path) as address,
        HostStreams(address, tls_of(tmp_path, Role.WORKER)) as opened,
    ):
        yield opened


async def read(streams: HostStreams, container: ContainerId = ONE, tail: int | None = None) -> list[str]:
    found = streams.logs(container, follow=False, tail=tail, since="then")
    return [f"{line.time} {line.text}" async for line in found]


async def test_a_log_comes_line_by_line(streams: HostStreams) -> None:
    assert await read(streams, tail=2) == ["then line 0", "then line 1"]
    assert len(await read(streams, tail=20_000)) == 20_000


async def test_an_error_of_the_host_arrives_as_what_it_was(streams: HostStreams) -> None:
    with pytest.raises(NotFound, match="no such container"):
        await read(streams, ContainerId("other"))


async def test_only_control_gets_in(engine: Engine, tmp_path: Path) -> None:
    stranger = Authority.make("inst1", time.time())
    async with served(engine, tmp_path) as address:
        for tls in (tls_of(tmp_path, Role.AGENT), tls_of(tmp_path, Role.WORKER, of=stranger)):
            async with HostStreams(address, tls) as streams:
                with pytest.raises(Unavailable):
                    await read(streams)
                with pytest.raises(Unavailable):
                    await streams.exec(ONE, ExecSpec(args=("sh",)))
        async with HostStreams(address, tls_of(tmp_path, Role.SERVE)) as streams:
            assert len(await read(streams)) == 3


async def test_another_host_at_the_address_is_not_believed(engine: Engine, tmp_path: Path) -> None:
    async with (
        served(engine, tmp_path) as address,
        HostStreams(address, tls_of(tmp_path, Role.WORKER, expected="host-2")) as streams,
    ):
        with pytest.raises(Unavailable, match="not agent host-2"):
            await read(streams)


async def test_a_follower_who_goes_away_ends_the_reading_on_the_host(
    streams: HostStreams, engine: Engine
) -> None:
    async with aclosing(streams.logs(ONE, follow=True, tail=1, since=None)) as lines:  # type: ignore[type-var]
        await anext(lines)
        reading = engine.reading

    await until(lambda: engine.reading == 0)
    assert reading == 1


async def test_bytes_go_both_ways_and_the_exit_code_comes_last(streams: HostStreams, engine: Engine) -> None:
    session = await streams.exec(ONE, ExecSpec(args=("cat",)))
    await session.resize(100, 40)
    await session.write(b"x" * 3_000_000)
    await session.close_stdin()

    chunks = [chunk async for chunk in session.output()]

    assert b"".join(data for stream, data in chunks if stream == 1) == b"X" * 3_000_000
    assert [data for stream, data in chunks if stream == 2] == [b"bye"]
    assert (await session.wait(), engine.sessions[0].size) == (7, (100, 40))
    await session.close()


async def test_a_client_who_goes_away_ends_the_process(streams: HostStreams, engine: Engine) -> None:
    session = await streams.exec(ONE, ExecSpec(args=("cat",)))

    await session.close()

    await until(lambda: engine.sessions[0].closed)
    with pytest.raises(Unavailable):
        await session.wait()


async def test_a_host_that_goes_away_ends_the_session(engine: Engine, tmp_path: Path) -> None:
    async with HostStreams("127.0.0.1:1", tls_of(tmp_path, Role.WORKER)) as nowhere:
        with pytest.raises(Unavailable, match="does not answer"):
            await nowhere.exec(ONE, ExecSpec(args=("cat",)))
    async with served(engine, tmp_path) as address:
        streams = HostStreams(address, tls_of(tmp_path, Role.WORKER))
        session = await streams.exec(ONE, ExecSpec(args=("cat",)))

    assert [chunk async for chunk in session.output()] == []
    with pytest.raises(Unavailable, match="broke off"):
        await session.wait()
    await session.close()
    await streams.http.aclose()


async def test_a_defect_of_the_host_is_named(streams: HostStreams) -> None:
    with pytest.raises(Exception, match="ZeroDivisionError"):
        await streams.exec(ONE, ExecSpec(args=("defect",)))


async def test_an_upload_without_a_proper_name_is_refused(streams: HostStreams, tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_bytes(b"x")

    with pytest.raises(InvalidInput):
        await streams.upload(tmp_path / ".hidden")

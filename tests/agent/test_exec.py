"""Processes started in running containers."""

import asyncio
from pathlib import Path

import pytest
from tests.agent.conftest import Hive, command_line, run_in, until

from skep.agent.supervisor import Supervisor
from skep.control.ports import ExecSession
from skep.model.errors import Conflict, InvalidInput, Unavailable
from skep.model.host import ExecSpec
from skep.model.spec import HealthCheck

pytestmark = pytest.mark.root


async def test_it_answers_output_and_exit_code(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec(environment={"COLOUR": "green"}, working_dir="/tmp", user="worker")
    await engine.start(spec)

    code, output = await run_in(
        engine, spec.id, "sh", "-c", "echo $COLOUR $MORE; pwd; id -u; exit 4", environment={"MORE": "x"}
    )
    root = await run_in(engine, spec.id, "id", "-u", user="root")

    assert (code, output) == (4, "green x\n/tmp\n1234\n")
    assert root == (0, "0\n")


async def test_streams_stay_apart_and_input_is_read(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)
    session = await engine.exec(spec.id, ExecSpec(args=("sh", "-c", "cat; echo oops >&2"), stdin=True))

    await session.write(b"x" * 300_000)
    await session.close_stdin()

    chunks = [chunk async for chunk in session.output()]
    assert sum(len(data) for stream, data in chunks if stream == 1) == 300_000
    assert b"".join(data for stream, data in chunks if stream == 2) == b"oops\n"
    assert await session.wait() == 0
    await session.close()


async def test_a_terminal_has_a_size_that_changes(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)
    session = await engine.exec(spec.id, ExecSpec(args=("sh",), tty=True, stdin=True, columns=97, rows=31))
    screen = Screen(session)

    await screen.shows("# ")
    await session.write(b"stty size; tty\n")
    await screen.shows("31 97")
    await session.resize(120, 40)
    await session.write(b"stty size\n")
    await screen.shows("40 120")
    await session.write(b"exit 6\n")

    assert await session.wait() == 6
    assert "/dev/pts/" in screen.text
    await screen.close()


async def test_closing_kills_the_process_inside(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)
    session = await engine.exec(spec.id, ExecSpec(args=("sleep", "4321")))
    while (await engine.usage(spec.id)).pids < 2:
        await asyncio.sleep(0.02)

    await session.close()
    await session.close()

    assert "4321" not in (await run_in(engine, spec.id, "ps"))[1]
    assert await session.wait() == 137


async def test_what_cannot_run_is_told(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)

    absent = await run_in(engine, spec.id, "no-such-program")
    forbidden = await run_in(engine, spec.id, "/etc/passwd")
    own_255 = await run_in(engine, spec.id, "sh", "-c", "exit 255")

    assert (absent[0], forbidden[0], own_255[0]) == (127, 126, 255)
    assert "executable file not found" in absent[1]
    with pytest.raises(InvalidInput, match="no user"):
        await run_in(engine, spec.id, "true", user="nobody-here")
    await engine.stop(spec.id)
    with pytest.raises(Conflict):
        await run_in(engine, spec.id, "true")


async def test_sessions_end_with_their_container(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)
    session = await engine.exec(spec.id, ExecSpec(args=("sleep", "1000"), tty=True))
    await asyncio.sleep(0.1)

    await engine.stop(spec.id, 0.0)

    assert [chunk async for chunk in session.output()] == []
    assert await session.wait() == 137
    await session.close()


class Screen:
    """What a terminal session has printed so far."""

    def __init__(self, session: ExecSession) -> None:
        self.text = ""
        self._session = session
        self._reading = asyncio.create_task(self._read())

    async def shows(self, text: str) -> None:
        await until(lambda: text in self.text)

    async def close(self) -> None:
        await self._reading
        await self._session.close()

    async def _read(self) -> None:
        async for _, chunk in self._session.output():
            self.text += chunk.decode()


async def test_a_closing_that_is_cancelled_leaves_no_process(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)
    session = await engine.exec(spec.id, ExecSpec(args=("sleep", "4322")))
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0)

    closing.cancel()
    await asyncio.wait([closing])

    assert closing.cancelled()
    assert await session.wait() == 137
    assert not [pid for pid in hive.processes() if "exec" in command_line(int(pid)).split("\0")]


async def test_a_supervisor_that_ends_has_reaped_its_probes(hive: Hive) -> None:
    check = HealthCheck(test=("CMD", "sleep", "4323"), interval=0.1)
    async with hive.supervisor() as engine:
        await engine.start(hive.spec(healthcheck=check))
        await until(lambda: any("4323" in command_line(int(pid)) for pid in processes()))

    assert not [pid for pid in hive.processes() if "exec" in command_line(int(pid)).split("\0")]


async def test_a_supervisor_that_ends_does_not_wait_for_a_long_grace(hive: Hive) -> None:
    spec = hive.spec("trap '' TERM; while true; do sleep 1; done", stop_grace_period=600.0)
    async with hive.supervisor() as engine:
        await engine.start(spec)
        stopping = asyncio.create_task(engine.stop(spec.id))
        await asyncio.sleep(0.2)

    with pytest.raises(Unavailable):
        await asyncio.wait_for(stopping, 5)
    async with hive.supervisor() as engine:
        assert (await engine.inspect(spec.id)).state == "running"


def processes() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]

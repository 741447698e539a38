"""Logs of running containers."""

import asyncio

import pytest
from tests.agent.conftest import Hive, Said, until

from skep.agent.supervisor import Supervisor
from skep.model.host import LogLine

pytestmark = pytest.mark.root


async def test_following_ends_when_the_container_is_removed(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("for i in $(seq 5); do echo line $i; sleep 0.1; done; exec sleep 1000")
    await engine.start(spec)
    seen: list[LogLine] = []

    async def follow() -> None:
        async for line in engine.logs(spec.id, follow=True):
            seen.append(line)  # noqa: PERF401 - seen while it goes on

    following = asyncio.create_task(follow())
    await until(lambda: len(seen) == 5)
    await engine.remove(spec.id)
    await asyncio.wait_for(following, 3)

    assert [line.text for line in seen] == [f"line {number}" for number in range(1, 6)]


async def test_long_lines_and_both_streams(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("seq 1 9000 | tr '\\n' ' '; echo; echo err >&2")
    await engine.start(spec)
    await engine.wait_exit(spec.id)

    lines = [line async for line in engine.logs(spec.id)]

    assert max(len(line.text) for line in lines) > 30_000
    assert {line.stream for line in lines} == {"stdout", "stderr"}


async def test_a_full_log_is_rotated_without_loss(engine: Supervisor, hive: Hive, said: Said) -> None:
    spec = hive.spec("i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.02; done")
    await engine.start(spec)
    log = engine._containers[spec.id].log
    log._limit = 500

    moved = 0
    while (await engine.inspect(spec.id)).exit_code is None:
        moved += log.rotate_if_large(lambda: engine._runtime.reopen_log(spec.id))
        await asyncio.sleep(0.2)

    files = sorted(path.name for path in log.path.parent.glob("log*"))
    text = (await said(spec.id)).splitlines()
    assert moved >= 2
    assert files == ["log", "log.1", "log.2"]
    assert text == [f"line {number}" for number in range(60 - len(text), 60)]
    assert [line.text async for line in engine.logs(spec.id, tail=3)] == ["line 57", "line 58", "line 59"]

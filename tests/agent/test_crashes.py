"""kill -9 of the whole supervisor at any moment: nothing leaks, and repeating what was asked works."""

import asyncio
import os
import signal
import time

import pytest
from tests.agent.conftest import Hive, until

from skep.model.host import ContainerSpec, ContainerState
from skep.model.spec import RestartPolicy

pytestmark = pytest.mark.root


@pytest.mark.parametrize("moment", [0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_killed_while_starting(hive: Hive, moment: float) -> None:
    specs = [hive.spec(restart=RestartPolicy()) for _ in range(4)]

    crash(hive, specs, moment)

    asyncio.run(start_again_and_remove(hive, specs))


@pytest.mark.parametrize("moment", [0.01, 0.05, 0.1])
def test_killed_while_removing(hive: Hive, moment: float) -> None:
    specs = [hive.spec() for _ in range(4)]
    asyncio.run(start_all(hive, specs))

    crash(hive, specs, moment, removing=True)

    asyncio.run(remove_all(hive, specs))


def crash(hive: Hive, specs: list[ContainerSpec], moment: float, *, removing: bool = False) -> None:
    """Start (or remove) everything in a process of its own, which is killed after `moment` seconds."""
    if (child := os.fork()) == 0:
        asyncio.run(remove_all(hive, specs) if removing else start_all(hive, specs))
        os._exit(0)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


async def start_all(hive: Hive, specs: list[ContainerSpec]) -> None:
    async with hive.supervisor() as engine:
        await asyncio.gather(*(engine.start(spec) for spec in specs))


async def remove_all(hive: Hive, specs: list[ContainerSpec]) -> None:
    async with hive.supervisor() as engine:
        await asyncio.gather(*(engine.remove(spec.id) for spec in specs))
        assert await engine.list() == []
    await until(lambda: hive.leftovers() == [])


async def start_again_and_remove(hive: Hive, specs: list[ContainerSpec]) -> None:
    async with hive.supervisor() as engine:
        await asyncio.gather(*(engine.start(spec) for spec in specs))
        await asyncio.gather(*(engine.wait_ready(spec.id) for spec in specs))
        assert {status.state for status in await engine.list()} == {ContainerState.RUNNING}
    await remove_all(hive, specs)

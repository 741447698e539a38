"""What outlives a supervisor, and what is made of half-removed states."""

import asyncio
import os
import shutil
import signal

import msgspec
import pytest
from tests.agent.conftest import Hive, command_line, run_in, until

from skep.agent.records import Records
from skep.agent.teardown import teardown
from skep.model.host import ContainerState
from skep.model.spec import RestartPolicy

pytestmark = pytest.mark.root


async def test_containers_survive_a_supervisor_and_are_adopted(hive: Hive) -> None:
    spec = hive.spec("echo first; trap 'exit 5' TERM; while :; do sleep 0.05; done")
    async with hive.supervisor() as first:
        await first.start(spec)
        before = await first.inspect(spec.id)

    async with hive.supervisor() as second:
        after = await second.inspect(spec.id)
        code, _ = await run_in(second, spec.id, "true")
        await second.stop(spec.id, 5.0)
        stopped = await second.inspect(spec.id)

    assert (after.state, after.pid, after.started_at) == (
        ContainerState.RUNNING,
        before.pid,
        before.started_at,
    )
    assert (code, stopped.exit_code) == (0, 5)


async def test_an_exit_while_nobody_watched_is_noticed(hive: Hive) -> None:
    once, again = hive.spec("sleep 0.2; exit 9"), hive.spec("sleep 0.2", restart=RestartPolicy())
    async with hive.supervisor() as first:
        await first.start(once)
        await first.start(again)
    await until(lambda: len(hive.processes()) == 0)

    async with hive.supervisor() as second:
        assert await second.wait_exit(once.id) == 9
        await until(lambda: ContainerState.RESTARTING in hive.events.states(again.id))
        await second.remove(again.id)


async def test_a_monitor_that_died_unwatched_is_noticed(hive: Hive) -> None:
    spec = hive.spec(restart=RestartPolicy())
    async with hive.supervisor() as first:
        await first.start(spec)
        pid = (await first.inspect(spec.id)).pid
    conmon = int((hive.run / "containers" / spec.id / "conmon.pid").read_text())
    os.kill(conmon, signal.SIGKILL)
    await until(lambda: command_line(conmon) == "")

    async with hive.supervisor() as second:
        await second.wait_ready(spec.id)
        status = await second.inspect(spec.id)

    assert status.state is ContainerState.RUNNING
    assert status.pid != pid


def written(text: str) -> str:
    """A script that waits until the container has written the text."""
    return f'until [ "$(cat /kept)" = "{text}" ]; do sleep 0.02; done'


async def test_after_a_reboot_it_is_exited_and_starts_with_its_disk(hive: Hive) -> None:
    spec = hive.spec("echo x >> /kept; cat /kept; sleep 1000", restart=RestartPolicy())
    async with hive.supervisor() as first:
        await first.start(spec)
        await run_in(first, spec.id, "sh", "-c", written("x"))
    await reboot(hive)

    async with hive.supervisor() as second:
        gone = await second.inspect(spec.id)
        await second.start(spec)
        _, kept = await run_in(second, spec.id, "sh", "-c", written("x\nx") + "; cat /kept")

    assert gone.state is ContainerState.EXITED
    assert "restarted" in gone.error
    assert kept == "x\nx\n"


@pytest.mark.parametrize("lost", ["runc", "containers", "exits"])
async def test_a_container_is_removed_even_if_half_of_it_is_gone(hive: Hive, lost: str) -> None:
    spec = hive.spec()
    async with hive.supervisor() as engine:
        await engine.start(spec)
        if lost == "containers":
            for name in ("pid", "conmon.pid", "config.json"):
                (hive.run / lost / spec.id / name).unlink()
        else:
            shutil.rmtree(hive.run / lost / spec.id, ignore_errors=True)

        await engine.remove(spec.id)

    await until(lambda: hive.leftovers() == [])


async def test_what_has_no_record_is_removed_on_entering(hive: Hive) -> None:
    spec = hive.spec()
    async with hive.supervisor() as first:
        await first.start(spec)
    Records(hive.data / "containers").delete(spec.id)

    async with hive.supervisor() as second:
        assert await second.list() == []

    assert hive.leftovers() == []


async def test_a_start_that_was_cut_short_can_be_repeated(hive: Hive) -> None:
    spec = hive.spec()
    async with hive.supervisor() as first:
        starting = asyncio.create_task(first.start(spec))
        await asyncio.sleep(0.02)
        starting.cancel()

    async with hive.supervisor() as second:
        await second.start(spec)
        assert (await second.inspect(spec.id)).state is ContainerState.RUNNING


async def test_teardown_leaves_only_data(hive: Hive) -> None:
    spec = hive.spec()
    async with hive.supervisor() as engine:
        await engine.start(spec)

    removed = await teardown(hive.instance, hive.data, hive.run)

    assert removed == 1
    assert hive.leftovers() == []
    assert (hive.data / "containers" / spec.id / "record.json").exists()


async def test_after_a_teardown_nothing_starts_by_itself(hive: Hive) -> None:
    spec = hive.spec(restart=RestartPolicy())
    async with hive.supervisor() as engine:
        await engine.start(spec)
    await teardown(hive.instance, hive.data, hive.run)

    async with hive.supervisor() as engine:
        await asyncio.sleep(0.5)
        assert (await engine.inspect(spec.id)).state is ContainerState.EXITED
        await engine.start(spec)
        assert (await engine.inspect(spec.id)).state is ContainerState.RUNNING


async def reboot(hive: Hive) -> None:
    """What a reboot does to this instance: processes, mounts and `run` are gone, the boot id is another."""
    await teardown(hive.instance, hive.data, hive.run)
    records = Records(hive.data / "containers")
    for record in list(records.read_all()):
        records.write(msgspec.structs.replace(record, boot="another-boot"))
    shutil.rmtree(hive.run)

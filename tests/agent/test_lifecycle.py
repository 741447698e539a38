"""Starting, stopping, exit codes, refusals, restarts, removal."""

import asyncio
import os
import signal
from typing import Any

import msgspec
import pytest
from tests.agent.conftest import Hive, Said, command_line, until

from skep.agent.supervisor import Supervisor
from skep.model.errors import Conflict, HostFailure, InvalidInput, NotFound, Unavailable
from skep.model.host import ContainerState, Health
from skep.model.ids import ContainerId, Seconds
from skep.model.spec import HealthCheck, RestartPolicy
from skep.providers.local.kernel import mount, unmount

pytestmark = pytest.mark.root


async def test_a_container_runs_and_says_what_it_prints(engine: Supervisor, hive: Hive, said: Said) -> None:
    spec = hive.spec("echo hello from $HOSTNAME; echo oops >&2; exit 3")

    await engine.start(spec)

    assert "hello from web-0" in await said(spec.id)
    status = await engine.inspect(spec.id)
    assert (status.state, status.exit_code) == (ContainerState.EXITED, 3)


async def test_starting_what_runs_is_success_unless_it_differs(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)
    pid = (await engine.inspect(spec.id)).pid

    await engine.start(spec)

    assert (await engine.inspect(spec.id)).pid == pid
    with pytest.raises(Conflict):
        await engine.start(msgspec.structs.replace(spec, hostname="other"))


async def test_a_removed_container_leaves_nothing(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)

    await engine.remove(spec.id)
    await engine.remove(spec.id)

    assert hive.leftovers() == []
    assert not list((hive.data / "containers").iterdir())
    assert hive.events.gone[0] == spec.id
    with pytest.raises(NotFound):
        await engine.inspect(spec.id)


async def test_an_exited_container_starts_again_with_what_it_wrote(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    spec = hive.spec("echo x >> /kept; wc -l < /kept")
    await engine.start(spec)
    await engine.wait_exit(spec.id)

    await engine.start(spec)

    assert await said(spec.id) == "1\n2"


async def test_stop_asks_first(engine: Supervisor, hive: Hive, said: Said) -> None:
    spec = hive.spec("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
    await engine.start(spec)
    await until(lambda: engine_log(hive, spec.id).count("up") == 1)

    await engine.stop(spec.id, 5.0)

    assert (await engine.inspect(spec.id)).exit_code == 7
    assert "bye" in await said(spec.id)


async def test_stop_kills_who_does_not_listen(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("trap '' TERM; while :; do sleep 0.05; done", restart=RestartPolicy())
    await engine.start(spec)

    await engine.stop(spec.id, 0.2)

    status = await engine.inspect(spec.id)
    assert (status.state, status.exit_code, status.restarts) == (ContainerState.EXITED, 137, 0)
    assert [each for each in hive.leftovers() if "/secrets" not in each] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"args": ("foo",)}, "shop/web-0: the image has no program 'foo' (looked in PATH /usr/local/sbin"),
        ({"args": ("/opt/foo",)}, "shop/web-0: the image has no program '/opt/foo'."),
        ({"args": ("/etc/passwd",)}, "shop/web-0: '/etc/passwd' in the image cannot be executed."),
        ({"args": ()}, "shop/web-0: neither the image nor the service names a program"),
        ({"user": "nobody-here"}, "shop/web-0: the image has no user 'nobody-here'"),
        (
            {"working_dir": "/etc/passwd"},
            "shop/web-0: the working directory '/etc/passwd' cannot be entered.",
        ),
        ({"cap_add": ("FLY",)}, "shop/web-0: "),
        ({"sysctls": {"kernel.panic": "1"}}, "shop/web-0: the sysctl 'kernel.panic' belongs to the host"),
    ],
)
async def test_what_cannot_start_is_explained_and_leaves_nothing(
    engine: Supervisor, hive: Hive, changes: dict[str, Any], words: str
) -> None:
    spec = hive.spec(**changes)

    with pytest.raises(InvalidInput) as refused:
        await engine.start(spec)

    assert refused.value.message.startswith(words)
    assert hive.leftovers() == []
    assert await engine.list() == []


async def test_a_crashing_container_is_restarted_with_growing_delays(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("exit 1", restart=RestartPolicy(condition="on-failure", max_attempts=2))

    await engine.start(spec)

    assert await engine.wait_exit(spec.id) == 1
    assert (await engine.inspect(spec.id)).restarts == 2
    assert hive.events.states(spec.id).count(ContainerState.RESTARTING) == 2


async def test_a_killed_container_follows_its_policy(engine: Supervisor, hive: Hive) -> None:
    always, never = hive.spec(restart=RestartPolicy()), hive.spec()
    for spec in (always, never):
        await engine.start(spec)

    for spec in (always, never):
        os.kill((await engine.inspect(spec.id)).pid or 0, signal.SIGKILL)

    assert await engine.wait_exit(never.id) == 137
    await until(lambda: hive.events.states(always.id).count(ContainerState.RUNNING) == 2)
    assert (await engine.inspect(always.id)).restarts == 1


async def test_a_container_without_its_monitor_is_replaced(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec(restart=RestartPolicy())
    await engine.start(spec)
    first = (await engine.inspect(spec.id)).pid

    os.kill(int((hive.run / "containers" / spec.id / "conmon.pid").read_text()), signal.SIGKILL)

    await until(lambda: hive.events.states(spec.id).count(ContainerState.RUNNING) == 2)
    assert command_line(first or 0) == ""  # at most a zombie that init has not met yet
    assert (await engine.inspect(spec.id)).pid != first


async def test_a_restart_waiting_for_its_time_can_be_stopped(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("exit 1", restart=RestartPolicy(delay=Seconds(30.0)))
    await engine.start(spec)
    await until(lambda: ContainerState.RESTARTING in hive.events.states(spec.id))

    await engine.stop(spec.id)

    assert (await engine.inspect(spec.id)).state is ContainerState.EXITED


async def test_health_decides_who_is_ready_and_resolvable(engine: Supervisor, hive: Hive) -> None:
    check = HealthCheck(test=("CMD-SHELL", "cat /ok"), interval=0.1, retries=2)
    spec = hive.spec(
        "sleep 0.3; touch /ok; sleep 1000", healthcheck=msgspec.structs.replace(check, retries=50)
    )
    spec = msgspec.structs.replace(spec, ports=(hive.port(spec.replica),))
    sick = hive.spec(healthcheck=check)

    await asyncio.gather(engine.start(spec), engine.start(sick))
    await engine.wait_ready(spec.id)

    assert (await engine.inspect(spec.id)).health is Health.HEALTHY
    assert hive.fabric.resolvable[spec.replica] is True
    with pytest.raises(Unavailable, match="No such file"):
        await engine.wait_ready(sick.id)
    await engine.stop(spec.id)
    assert hive.fabric.resolvable[spec.replica] is False


async def test_what_ends_before_it_was_ever_well_is_never_ready(engine: Supervisor, hive: Hive) -> None:
    check = HealthCheck(test=("CMD-SHELL", "exit 1"), interval=0.1, retries=50)
    spec = hive.spec("exit 7", healthcheck=check, restart=RestartPolicy(condition="always"))
    await engine.start(spec)

    while (await engine.inspect(spec.id)).restarts < 3:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await engine.wait_ready(spec.id)


async def test_what_ends_again_and_again_is_not_waited_for_for_ever(
    engine: Supervisor, hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skep.agent.container.HOPELESS", 3)
    check = HealthCheck(test=("CMD-SHELL", "exit 1"), interval=0.1, retries=50)
    spec = hive.spec("echo no database; exit 7", healthcheck=check, restart=RestartPolicy(condition="always"))
    await engine.start(spec)

    with pytest.raises(Unavailable, match=r"ends again and again.*exit code 7(?s:.)*no database"):
        await engine.wait_ready(spec.id)

    await engine.remove(spec.id)


async def test_not_ready_ends_with_the_last_lines(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("echo cannot find the database >&2; exit 2")

    await engine.start(spec)

    await engine.wait_exit(spec.id)
    with pytest.raises(Unavailable, match=r"exited with 2.*\n.*cannot find the database"):
        await engine.wait_ready(spec.id)


async def test_many_start_at_once(engine: Supervisor, hive: Hive) -> None:
    specs = [hive.spec() for _ in range(12)]

    await asyncio.gather(*(engine.start(spec) for spec in specs))

    assert {status.state for status in await engine.list()} == {ContainerState.RUNNING}
    await asyncio.gather(*(engine.remove(spec.id) for spec in specs))
    assert hive.leftovers() == []


def engine_log(hive: Hive, container: ContainerId) -> str:
    log = hive.data / "containers" / container / "log"
    return log.read_text() if log.exists() else ""


async def test_a_full_disk_is_told_and_leaves_nothing(hive: Hive) -> None:
    hive.run.mkdir()
    mount("tmpfs", hive.run, "tmpfs", options="size=64k")
    try:
        async with hive.supervisor() as engine:
            (hive.run / "ballast").write_bytes(b"x" * 48 * 1024)
            spec = hive.spec(environment={f"NAME_{number}": "value" for number in range(4000)})
            with pytest.raises(HostFailure, match="shop/web-0: the host has no room left"):
                await engine.start(spec)

            assert await engine.list() == []
            assert hive.leftovers() == []
    finally:
        unmount(hive.run)


async def test_an_absent_container_is_told_apart(engine: Supervisor) -> None:
    nobody = ContainerId("00000000000000000000")

    await engine.stop(nobody)
    await engine.remove(nobody)

    with pytest.raises(NotFound):
        await engine.wait_ready(nobody)

"""Control whose host is another machine: over the bus and over HTTPS, with the same outcome as on its own."""

import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.remote import elsewhere
from tests.control.installation import HOST, Installation, installation
from tests.control.simulation import app

from skep.model.host import ContainerState, ExecSpec
from skep.model.spec import ServiceSpec


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, reach=lambda _, host: elsewhere(host, tmp_path)) as opened:
        yield opened


def web(*command: str) -> ServiceSpec:
    return ServiceSpec(image="busybox:1", command=command)


async def test_an_app_is_applied_looked_at_and_removed(made: Installation) -> None:
    control, admin = made.control, made.admin

    await made.finish(await control.apps.apply(admin, app(web=web("echo", "hello"))))

    (status,) = await made.host.engine.list()
    assert status.state in (ContainerState.RUNNING, ContainerState.RESTARTING)
    lines = [line.text async for line in control.replicas.logs(admin, "shop", "web-0")]
    assert set(lines) == {"hello"}
    await made.finish(await control.apps.remove(admin, "shop"))
    assert (await made.host.engine.list(), await made.host.disks.list()) == ([], {})


async def test_a_command_runs_in_a_replica(made: Installation) -> None:
    await made.finish(await made.control.apps.apply(made.admin, app(web=web("sleep", "infinity"))))

    session = await made.control.replicas.exec(made.admin, "shop", "web", ExecSpec(args=("echo", "inside")))
    said = b"".join([chunk async for _, chunk in session.output()])
    code = await session.wait()
    await session.close()

    assert (said, code) == (b"inside\n", 0)


async def test_an_upload_moves_to_the_host_and_is_gone_when_its_run_has_ended(
    made: Installation, tmp_path: Path
) -> None:
    archive = made.control.images.upload_path(made.admin)
    (tmp_path / "hello").write_text("hi")
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "hello", "hello")

    await made.finish(await made.control.images.load(made.admin, archive, "hello:1"))

    found = [view.reference for view in await made.control.images.list(made.admin)]
    assert "hello:1" in found
    assert list(archive.parent.iterdir()) == list(made.host.spool.folder.iterdir()) == []


async def test_a_release_that_fails_is_undone_on_the_host(made: Installation) -> None:
    accepted = await made.control.apps.apply(made.admin, app(web=web("nothing")))

    assert accepted.run is not None
    with pytest.raises(AssertionError, match="no program 'nothing'"):
        await made.finish(accepted)

    host = made.host
    assert (await host.engine.list(), await host.disks.list(), await host.fabric.ports()) == ([], {}, set())
    assert HOST in [view.name for view in await made.control.hosts.list(made.admin)]

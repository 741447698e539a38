"""What died is started again, what was deleted by hand is made again, what nobody needs goes."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.machines import Machine, MiB, app, fetch, service

from skep.control.ports import Host
from skep.control.reconcilers.backoff import Backoff
from skep.control.runs.run_selection import Selection
from skep.model.errors import Conflict, SkepError
from skep.model.host import ContainerSpec, DiskSpec, NetworkConfig, PortConfig
from skep.model.ids import Bytes, ContainerId, DiskId, NetworkId, PortId, ReplicaId, TenantId, new_id
from skep.model.spec import HealthCheck, Mount, PublishedPort, Resources, RestartPolicy, ServiceSpec

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("eager")]

NEVER = RestartPolicy(condition="no")
DATA = Mount(type="volume", source="data", target="/data")


def web(**changes: object) -> ServiceSpec:
    return service(ports=(PublishedPort(target=80),), **changes)


async def published(cloud: Machine) -> int:
    view = (await cloud.control.apps.show(cloud.admin, "shop")).app
    return int(view.urls[0].rsplit(":", 1)[1])


async def answers(port: int, timeout: float = 20) -> None:
    """Wait until the published port answers again."""
    async with asyncio.timeout(timeout):
        while True:
            try:
                if await fetch(port) == "hello\n":
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)


async def quiet(cloud: Machine, timeout: float = 20) -> None:
    """Wait until no run is active."""
    async with asyncio.timeout(timeout):
        while await cloud.control.runs.list(cloud.admin, Selection(active=True)):
            await asyncio.sleep(0.05)


def container(cloud: Machine) -> str:
    """The id of the only container."""
    (found,) = (cloud.settings.data / "containers").iterdir()
    return found.name


def bundle(cloud: Machine) -> Path:
    return cloud.settings.run / "containers" / container(cloud)


def kill(file: Path) -> None:
    os.kill(int(file.read_text()), signal.SIGKILL)


def shell(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def namespace(cloud: Machine, kind: str) -> str:
    """The only namespace of this kind: `r` a sandbox, `n` a router."""
    (found,) = Path("/run/netns").glob(f"{cloud.settings.instance}-{kind}-*")
    return found.name


def stray_network(tenant: TenantId) -> NetworkConfig:
    return NetworkConfig(
        id=NetworkId(new_id()),
        tenant=tenant,
        name="stray",
        subnet=IPv4Network("10.9.0.0/24"),
        gateway=IPv4Address("10.9.0.1"),
        index=99,
        internal=False,
    )


def host(cloud: Machine) -> Host:
    return cloud.control.replicas._hosts.on(cloud.settings.host)


# -- what died ------------------------------------------------------------------------------------


async def test_a_killed_container_is_restarted_and_the_restart_is_counted(cloud: Machine) -> None:
    await cloud.apply(app(web=web()))

    kill(bundle(cloud) / "pid")

    view = await cloud.until("shop", "web-0", lambda v: v.state == "running" and v.restarts == 1)
    assert view.oom_killed is False
    await answers(await published(cloud))


async def test_a_container_whose_conmon_died_is_made_again(cloud: Machine) -> None:
    await cloud.apply(app(web=web()))
    before = await cloud.replica("shop", "web-0")

    kill(bundle(cloud) / "conmon.pid")

    await cloud.until("shop", "web-0", lambda v: v.state == "running" and v.started != before.started)
    await answers(await published(cloud))


async def test_running_out_of_memory_is_shown(cloud: Machine) -> None:
    eat = "while ! test -e /tmp/hungry; do sleep 0.05; done; x=1; while true; do x=$x$x; done"
    await cloud.apply(app(web=service("sh", "-c", eat, restart=NEVER, resources=Resources(memory=16 * MiB))))

    await cloud.output("shop", "web", "touch", "/tmp/hungry")

    view = await cloud.until("shop", "web-0", lambda v: v.state == "exited")
    assert (view.oom_killed, view.exit_code) == (True, 137)


async def test_a_job_that_is_done_is_left_alone(cloud: Machine) -> None:
    await cloud.apply(app(job=service("sh", "-c", "echo x >> /runs", restart=NEVER), web=web()))
    done = await cloud.until("shop", "job-0", lambda v: v.state == "exited")

    await asyncio.sleep(1)  # three passes

    after = await cloud.replica("shop", "job-0")
    assert (after.started, after.exit_code, after.restarts) == (done.started, 0, 0)
    assert (await cloud.control.apps.show(cloud.admin, "shop")).app.state == "running"


async def test_a_service_that_was_stopped_stays_stopped(cloud: Machine) -> None:
    await cloud.apply(app(web=web()))
    await cloud.finish(await cloud.control.apps.stop(cloud.admin, "shop"))

    await asyncio.sleep(1)  # three passes

    assert (await cloud.replica("shop", "web-0")).state == "stopped"


async def test_what_was_stopped_for_something_that_did_not_come_about_runs_again(cloud: Machine) -> None:
    await cloud.apply(app(web=web()))

    await host(cloud).engine.stop(ContainerId(container(cloud)))

    await answers(await published(cloud))


# -- what was deleted by hand ---------------------------------------------------------------------


def _delete_runc_state(cloud: Machine) -> None:
    shutil.rmtree(cloud.settings.run / "runc" / container(cloud))
    kill(bundle(cloud) / "pid")


def _delete_overlay(cloud: Machine) -> None:
    shell("umount", "--lazy", str(bundle(cloud) / "rootfs"))
    kill(bundle(cloud) / "pid")


def _delete_bundle(cloud: Machine) -> None:
    shell("umount", "--lazy", str(bundle(cloud) / "rootfs"))
    pid = bundle(cloud) / "pid"
    number = pid.read_text()
    shutil.rmtree(bundle(cloud))
    os.kill(int(number), signal.SIGKILL)


def _delete_networking(cloud: Machine) -> None:
    for kind in "rn":
        shell("ip", "netns", "delete", namespace(cloud, kind))
    shell("nft", "delete", "table", "inet", cloud.settings.instance)


def _delete_container_directory(cloud: Machine) -> None:
    pid = bundle(cloud) / "pid"
    shutil.rmtree(cloud.settings.data / "containers" / container(cloud))
    kill(pid)


DAMAGES: dict[str, Callable[[Machine], object]] = {
    "sandbox": lambda cloud: shell("ip", "netns", "delete", namespace(cloud, "r")),
    "router": lambda cloud: shell("ip", "netns", "delete", namespace(cloud, "n")),
    "nft table": lambda cloud: shell("nft", "delete", "table", "inet", cloud.settings.instance),
    "veth": lambda cloud: shell("ip", "-n", namespace(cloud, "r"), "link", "delete", "eth0"),
    "uplink": lambda cloud: shell("ip", "-n", namespace(cloud, "n"), "link", "delete", "up0"),
    "all networking": _delete_networking,
    "runc state": _delete_runc_state,
    "overlay": _delete_overlay,
    "bundle": _delete_bundle,
    "container directory": _delete_container_directory,
    "container directory alone": lambda cloud: shutil.rmtree(
        cloud.settings.data / "containers" / container(cloud)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_was_deleted_by_hand_is_made_again(cloud: Machine, damage: str) -> None:
    await cloud.apply(app(web=web(mounts=(DATA,))))
    port = await published(cloud)
    before = await cloud.replica("shop", "web-0")
    await cloud.output("shop", "web", "sh", "-c", "echo kept > /data/file; echo kept > /root/file; sync")

    DAMAGES[damage](cloud)

    await asyncio.sleep(0.5)
    await answers(port)
    await quiet(cloud)
    after = await cloud.until("shop", "web-0", lambda v: v.state == "running")
    assert (after.addresses, after.mac) == (before.addresses, before.mac)
    assert await cloud.output("shop", "web", "cat", "/data/file", "/root/file") == "kept\nkept\n"
    assert await cloud.output("shop", "web", "nslookup", "web") != ""


async def test_a_lost_data_disk_is_never_replaced_by_an_empty_one(cloud: Machine) -> None:
    await cloud.apply(app(web=web(mounts=(DATA,))))
    (disk,) = await cloud.control.disks.list(cloud.admin)
    hidden = cloud.settings.data / "pool/aside"
    (cloud.settings.data / "pool/disks" / disk.id).rename(hidden)

    await host(cloud).engine.remove(ContainerId(container(cloud)))
    await asyncio.sleep(1)  # three passes
    assert (await cloud.replica("shop", "web-0")).state != "running"

    hidden.rename(cloud.settings.data / "pool/disks" / disk.id)
    await answers(await published(cloud))


# -- what nobody needs ----------------------------------------------------------------------------


async def test_what_no_row_asks_for_is_collected_but_data_never(cloud: Machine) -> None:
    await cloud.apply(app(web=web()))
    local = host(cloud)
    name = container(cloud)
    record = msgspec.json.decode((cloud.settings.data / "containers" / name / "record.json").read_bytes())
    data, strays = DiskId(new_id()), []
    await local.disks.create(DiskSpec(id=data, size=Bytes(MiB), kind="data"))

    async def make_stray() -> None:
        """All of it anew each time: a pass that comes between takes what is there of the last one."""
        network = stray_network(record["spec"]["tenant"])
        stray, system = ReplicaId(new_id()), DiskId(new_id())
        strays.append((network.id, system))
        await local.disks.create(DiskSpec(id=system, size=Bytes(MiB), kind="system"))
        await local.fabric.ensure_network(network)
        await local.fabric.plug(
            PortConfig(
                id=PortId(new_id()),
                network=network.id,
                replica=stray,
                address=IPv4Address("10.9.0.2"),
                mac="02:00:00:00:00:09",
                app="stray",
            )
        )
        await local.engine.start(
            ContainerSpec(
                id=ContainerId(new_id()),
                replica=stray,
                tenant=network.tenant,
                name="stray/web-0",
                hostname="stray",
                image=record["spec"]["image"],
                args=("sleep", "1000"),
                environment={"PATH": "/bin"},
                working_dir="/",
                user="",
                system_disk=system,
            )
        )

    while True:
        with suppress(SkepError):  # a pass has taken half of it
            await make_stray()
            break
        await asyncio.sleep(0.1)

    networks, systems = {network for network, _ in strays}, {system for _, system in strays}
    ours = {ReplicaId(record["spec"]["replica"])}
    async with asyncio.timeout(60):  # what a pass took half of, the next one takes whole
        while len(await local.engine.list()) > 1 or networks & await local.fabric.networks():
            await asyncio.sleep(0.1)
        while await local.fabric.sandboxes() != ours or systems & set(await local.disks.list()):
            await asyncio.sleep(0.1)
    await quiet(cloud)

    left = await local.disks.list()
    assert not systems & set(left)
    assert data in left
    await answers(await published(cloud))


async def test_what_cannot_be_collected_is_tried_ever_more_rarely(cloud: Machine) -> None:
    network = stray_network(TenantId(new_id()))
    await host(cloud).fabric.ensure_network(network)
    (record,) = [path for path in network_records(cloud, "network") if network.id in path.name]
    shell("chattr", "+i", str(record))
    try:
        await asyncio.sleep(3.5)
        runs = [run for run in await cloud.control.runs.list(cloud.admin, limit=1000) if "clean" in run.title]
    finally:
        shell("chattr", "-i", str(record))
    assert len(runs) <= 3


# -- interrupted work -----------------------------------------------------------------------------


async def test_a_removal_that_was_cancelled_is_taken_up_again(cloud: Machine) -> None:
    stubborn = service("sh", "-c", "trap '' TERM; while true; do sleep 0.1; done", stop_grace_period=1)
    await cloud.apply(app(web=stubborn))
    removal = await cloud.control.apps.remove(cloud.admin, "shop")
    assert removal.run is not None

    await cloud.control.runs.cancel(cloud.admin, removal.run)

    async with asyncio.timeout(20):
        while await cloud.control.apps.list(cloud.admin):
            await asyncio.sleep(0.1)


async def test_an_undo_that_cannot_be_done_waits_for_an_operator(cloud: Machine) -> None:
    await cloud.apply(app("other", web=service()))
    check = HealthCheck(test=("CMD", "false"), interval=0.1, retries=10)
    accepted = await cloud.control.apps.apply(cloud.admin, app(web=service(healthcheck=check)))
    assert accepted.run is not None
    await cloud.until("shop", "web-0", lambda v: v.state == "running")
    (record,) = [p for p in network_records(cloud, "sandbox") if "shop" in p.read_text()]

    shell("chattr", "+i", str(record))
    try:
        stuck = await needs_operator(cloud, accepted.run)
    finally:
        shell("chattr", "-i", str(record))
    for step in stuck:
        await cloud.control.runs.resolve(cloud.admin, accepted.run, step, "retry")

    run = await cloud.finish(accepted, expect="failed")
    assert "unhealthy" in run.error
    assert [view.name for view in await cloud.control.apps.list(cloud.admin)] == ["other"]


async def test_resolving_what_needs_no_operator_is_a_conflict(cloud: Machine) -> None:
    run = await cloud.apply(app(web=service()))

    with pytest.raises(Conflict, match="ended"):
        await cloud.control.runs.resolve(cloud.admin, run.id, "begin", "retry")
    with pytest.raises(Conflict, match="ended"):
        await cloud.control.runs.cancel(cloud.admin, run.id)


async def needs_operator(cloud: Machine, run: str, timeout: float = 30) -> list[str]:
    """Wait until the run asks for an operator; the steps that do."""
    async with asyncio.timeout(timeout):
        while True:
            detail = await cloud.control.runs.show(cloud.admin, run)
            if detail.run.state == "needs-operator":
                return [step.name for step in detail.steps if step.state == "needs-operator"]
            await asyncio.sleep(0.1)


def network_records(cloud: Machine, kind: str) -> list[Path]:
    return sorted(cloud.settings.data.glob(f"**/{kind}-*.json"))


# -- decisions ------------------------------------------------------------------------------------


def test_attempts_become_rarer_until_it_is_well_again() -> None:
    now = [0.0]
    backoff = Backoff(lambda: now[0])

    waits = []
    for _ in range(10):
        backoff.attempted("web")
        began = now[0]
        while not backoff.ready("web"):
            now[0] += 0.5
        waits.append(now[0] - began)
    backoff.keep_only(set())
    backoff.attempted("web")
    now[0] += 1

    assert waits == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]
    assert backoff.ready("web")

"""A whole skep of its own for a test: real containers, networks and disks under a name nobody else has."""

import asyncio
import itertools
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import msgspec
from tests.schema import put_schema

from skep.configuration import Configuration
from skep.control.callers import Caller
from skep.control.control import Control
from skep.main.teardown import tear_down
from skep.main.up import installation
from skep.model.errors import NotFound
from skep.model.ids import Bytes
from skep.model.names import AppName, ServiceName
from skep.model.spec import AppSpec, AppVolume, ServiceSpec
from skep.model.views.apps import ReplicaView
from skep.model.views.base import Accepted
from skep.model.views.runs import RunView

MiB = 1024 * 1024
APPLETS = """
sh ls cat sleep httpd wget nc id ip echo ping nslookup hostname mount touch dd ps env kill mkdir rm head tail
true false date stat df sync test seq wc grep chmod sed awk od
"""

_numbers = itertools.count(secrets.randbelow(100))


def configuration(folder: Path) -> Configuration:
    """An installation in `folder` with a small pool and link addresses of its own."""
    number = next(_numbers) % 64
    return Configuration(
        instance=f"t{secrets.token_hex(3)}",
        data=folder / "data",
        run=folder / "run",
        etc=folder / "etc",
        listen=f"127.0.0.1:{20_000 + secrets.randbelow(10_000)}",
        pool_size=Bytes(1024 * MiB),
        default_disk=Bytes(64 * MiB),
        default_memory=Bytes(128 * MiB),
        links=IPv4Network(f"100.{64 + number % 32}.{128 * (number // 32)}.0/17"),
    )


def busybox_archive(folder: Path) -> Path:
    """A root file system of busybox alone, as a tar."""
    root = folder / "rootfs"
    for name in ("bin", "etc", "tmp", "www", "root", "proc", "data"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "www/index.html").write_text("hello\n")
    archive = folder / "busybox.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, ".")
    shutil.rmtree(root)
    return archive


class Machine:
    """A running installation with its admin, and shorthands for what tests do all the time."""

    def __init__(self, control: Control, settings: Configuration, admin: Caller) -> None:
        self.control = control
        self.settings = settings
        self.admin = admin

    async def finish(self, accepted: Accepted, *, expect: str = "succeeded", timeout: float = 60) -> RunView:
        """Follow the run to its end, which must be as expected."""
        assert accepted.run is not None, accepted.message
        async with asyncio.timeout(timeout):
            async for _ in self.control.runs.follow(self.admin, accepted.run):
                pass
        run = (await self.control.runs.show(self.admin, accepted.run)).run
        assert run.state == expect, f"{run.title}: {run.state}: {run.error}"
        return run

    async def apply(self, spec: AppSpec, *, expect: str = "succeeded", timeout: float = 60) -> RunView:
        return await self.finish(
            await self.control.apps.apply(self.admin, spec), expect=expect, timeout=timeout
        )

    async def replica(self, app: str, name: str) -> ReplicaView:
        return await self.control.replicas.show(self.admin, app, name)

    async def until(
        self, app: str, name: str, true: Callable[[ReplicaView], bool], timeout: float = 15
    ) -> ReplicaView:
        """Wait until the replica is as wanted."""
        view = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    with suppress(NotFound):  # a run may not have come as far as that
                        view = await self.replica(app, name)
                        if true(view):
                            return view
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{app}/{name} never became as wanted: {view}") from None

    async def output(self, app: str, name: str, *args: str) -> str:
        """What a command prints in the replica."""
        from skep.model.host import ExecSpec

        session = await self.control.replicas.exec(self.admin, app, name, ExecSpec(args=args))
        chunks = [chunk async for _, chunk in session.output()]
        await session.wait()
        await session.close()
        return b"".join(chunks).decode()


@asynccontextmanager
async def machine(settings: Configuration, archive: Path) -> AsyncIterator[Machine]:
    """Bring it up with a `busybox:1` image; afterwards nothing of it is left."""
    settings.data.mkdir(parents=True, exist_ok=True)
    settings.run.mkdir(parents=True, exist_ok=True)
    try:
        if not settings.database:
            await put_schema(settings.data / "skep.db")
        async with installation(settings) as control:
            token = (settings.etc / "admin.token").read_text().strip()
            admin = await control.auth.authenticate(token)
            result = Machine(control, settings, admin)
            if not await control.images.list(admin):
                upload = control.images.upload_path(admin)
                shutil.copy(archive, upload)
                await result.finish(await control.images.load(admin, upload, "busybox:1", shared=True))
            yield result
    finally:
        await tear_down(settings, purge=False)


def service(*command: str, **changes: object) -> ServiceSpec:
    """A busybox service that runs the command (default: a web server on port 80)."""
    spec = ServiceSpec(
        image="busybox:1",
        command=command or ("httpd", "-f", "-p", "80", "-h", "/www"),
        stop_grace_period=0.5,
    )
    return msgspec.structs.replace(spec, **changes)


def app(name: str = "shop", **services: ServiceSpec) -> AppSpec:
    """An app of these services, with the volumes they mount."""
    volumes = {
        mount.source: AppVolume()
        for spec in services.values()
        for mount in spec.mounts
        if mount.type == "volume" and mount.source
    }
    return AppSpec(
        name=AppName(name), services={ServiceName(k): v for k, v in services.items()}, volumes=volumes
    )


async def fetch(port: int) -> str:
    """What answers on the host's published port."""
    async with httpx.AsyncClient(timeout=5) as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text


async def leftover(instance: str, folder: Path, patience: float = 60) -> list[str]:
    """What is still there of an instance that ended, after the kernel had time to let go of its mounts.

    What makes a mount namespace at that moment, such as a build, has copies of them until it ends.
    """
    for _ in range(int(patience / 0.1)):
        if not traces(instance, folder):
            return []
        await asyncio.sleep(0.1)
    return traces(instance, folder)


def traces(instance: str, folder: Path) -> list[str]:
    """Everything on the machine that carries the instance's name or lies in its folder."""
    found = [f"namespace {path.name}" for path in Path("/run/netns").glob(f"{instance}-*")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if str(folder) in line]
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    found += [f"loop {line}" for line in loops.splitlines() if str(folder) in line]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += [f"nft {line}" for line in tables.splitlines() if line.split()[-1] == instance]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{instance}")]
    found += [f"process {pid}" for pid in _processes(str(folder))]
    return found


def _processes(text: str) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(path.name) != os.getpid() and ("conmon" in line or "runc" in line):
            yield int(path.name)

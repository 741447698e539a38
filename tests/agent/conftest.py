"""A host made of plain parts: layer and disk directories, `ip netns` sandboxes, real runc and conmon."""

import asyncio
import hashlib
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from skep.agent.supervisor import Supervisor
from skep.agent.teardown import teardown
from skep.control.ports import ContainerEvents, DiskPool, HostFabric, ImageStore, Supplies
from skep.model.errors import NotFound
from skep.model.host import ContainerSpec, ContainerState, ContainerStatus, ExecSpec, PortConfig
from skep.model.ids import ContainerId, Digest, DiskId, NetworkId, PortId, ReplicaId, TenantId, new_id
from skep.model.spec import RestartPolicy
from skep.providers.local.runtime import Runtime

NEVER = RestartPolicy(condition="no")
APPLETS = [
    "cat",
    "chmod",
    "cp",
    "dd",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "nc",
    "ping",
    "printf",
    "ps",
    "rm",
    "seq",
    "sh",
    "sleep",
    "stty",
    "stat",
    "tail",
    "touch",
    "true",
    "tty",
    "ulimit",
    "umount",
    "unshare",
    "wc",
    "yes",
    "awk",
    "chroot",
    "ip",
    "df",
]


class DirectoryDisks:
    """Disks that are plain directories, without quotas."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def path(self, disk: DiskId) -> Path:
        path = self.folder / disk
        path.mkdir(parents=True, exist_ok=True)
        return path


class LayerDirectories:
    """Images whose layers are directories already."""

    def __init__(self) -> None:
        self.images: dict[Digest, tuple[Path, ...]] = {}

    def add(self, *layers: Path) -> Digest:
        digest = Digest("sha256:" + hashlib.sha256("".join(map(str, layers)).encode()).hexdigest())
        self.images[digest] = layers
        return digest

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        if digest not in self.images:
            raise NotFound(f"no image {digest}")
        return self.images[digest]


class NamedNamespaces:
    """Sandboxes made with `ip netns`; notes who resolves."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.resolvable: dict[ReplicaId, bool] = {}
        self._made: set[ReplicaId] = set()

    def make(self, replica: ReplicaId) -> None:
        subprocess.run(["ip", "netns", "add", self.prefix + replica], check=True)
        self._made.add(replica)

    def sandbox(self, replica: ReplicaId) -> Path:
        return Path("/run/netns") / (self.prefix + replica)

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        self.resolvable[replica] = up

    def close(self) -> None:
        for replica in self._made:
            subprocess.run(["ip", "netns", "delete", self.prefix + replica], check=False)


class KnownFiles:
    """What the control plane would answer: file contents and ports, held in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ports: dict[PortId, PortConfig] = {}

    async def file(self, digest: str) -> bytes:
        return self.files[digest]

    async def port(self, port: PortId) -> PortConfig:
        return self.ports[port]

    def add(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        return digest


class Diary:
    """Remembers what the agent observed."""

    def __init__(self) -> None:
        self.statuses: list[ContainerStatus] = []
        self.gone: list[ContainerId] = []

    async def observed(self, status: ContainerStatus) -> None:
        self.statuses.append(status)

    async def removed(self, container: ContainerId) -> None:
        self.gone.append(container)

    def states(self, container: ContainerId) -> list[ContainerState]:
        return [status.state for status in self.statuses if status.id == container]


class Hive:
    """One instance on this machine, of which several may live at once, and what a test needs around it."""

    def __init__(self, base: Path) -> None:
        self.instance = base.name
        self.base, self.data, self.run = base, base / "data", base / "run"
        self.disks = DirectoryDisks(base / "disks")
        self.images = LayerDirectories()
        self.fabric = NamedNamespaces(f"{base.name}-")
        self.desired = KnownFiles()
        self.events = Diary()
        self.runtime = Runtime.find(instance=self.instance, run=self.run)
        self.busybox = busybox_layer(base / "layers" / "busybox")
        self.image = self.images.add(self.busybox)

    def supervisor(self) -> Supervisor:
        return Supervisor(
            instance=self.instance,
            data=self.data,
            run=self.run,
            disks=cast(DiskPool, self.disks),
            fabric=cast(HostFabric, self.fabric),
            images=cast(ImageStore, self.images),
            supplies=cast(Supplies, self.desired),
            events=cast(ContainerEvents, self.events),
            runtime=self.runtime,
        )

    def spec(self, script: str = "exec sleep 1000", **changes: Any) -> ContainerSpec:
        """A container of the busybox image that runs a shell script."""
        spec = ContainerSpec(
            id=ContainerId(new_id()),
            replica=ReplicaId(new_id()),
            tenant=TenantId(new_id()),
            name="shop/web-0",
            hostname="web-0",
            image=self.image,
            args=("/bin/sh", "-c", script),
            environment={},
            working_dir="/",
            user="",
            system_disk=DiskId(new_id()),
            restart=NEVER,
            stop_grace_period=msgspec.convert(0.5, float),  # type: ignore[arg-type]
        )
        return msgspec.structs.replace(spec, **changes)

    def with_port(self, spec: ContainerSpec, nameserver: str) -> ContainerSpec:
        """The same container, connected."""
        port = self.port(spec.replica)
        return msgspec.structs.replace(spec, ports=(port,), nameserver=IPv4Address(nameserver))

    def port(self, replica: ReplicaId) -> PortId:
        """A port in a sandbox that exists."""
        port = PortId(new_id())
        self.fabric.make(replica)
        self.desired.ports[port] = PortConfig(
            id=port,
            network=NetworkId(new_id()),
            replica=replica,
            address=IPv4Address("10.9.8.7"),
            mac="02:00:00:00:00:01",
            app="shop",
        )
        return port

    def layer(self, **files: str) -> Path:
        """A further layer; keys are paths with `__` for `/`."""
        folder = self.base / "layers" / secrets.token_hex(4)
        for name, content in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def leftovers(self) -> list[str]:
        """Whatever of a container can be found on the machine: mounts, groups, directories, processes."""
        mounts = [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if str(self.run / "containers") in line
        ]
        groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.instance}/*/") if path.is_dir()]
        folders = [
            str(path)
            for place in ("runc", "containers", "exits", "sockets")
            for path in (self.run / place).glob("*")
        ]
        secret = [str(path) for path in (self.run / "secrets").glob("*")]
        return [*mounts, *groups, *folders, *secret, *self.processes()]

    def processes(self) -> list[str]:
        return [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and str(self.run) in command_line(int(entry.name))
        ]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def busybox_layer(folder: Path) -> Path:
    """A root file system of Debian's static busybox."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin" / "busybox")
    for applet in APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc").mkdir()
    (folder / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234:Worker:/home/worker:/bin/sh\n"
    )
    (folder / "etc" / "group").write_text("root:x:0:\nworker:x:1234:\nstaff:x:50:worker\n")
    for name in ("tmp", "root", "home/worker", "var/lib"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    return folder


@pytest.fixture
def hive() -> Iterator[Hive]:
    """Short paths: a socket's may have 107 characters.  Everything is gone afterwards, also on failure."""
    base = Path("/run") / f"skep-test-{secrets.token_hex(4)}"
    base.mkdir()
    made = Hive(base)
    try:
        yield made
    finally:
        asyncio.run(teardown(made.instance, made.data, made.run))
        made.fabric.close()
        shutil.rmtree(base)


@pytest.fixture
async def engine(hive: Hive) -> AsyncIterator[Supervisor]:
    async with hive.supervisor() as supervisor:
        yield supervisor


Said = Callable[[ContainerId], Awaitable[str]]


@pytest.fixture
def said(engine: Supervisor) -> Said:
    """What a container printed until it ended."""

    async def read(container: ContainerId) -> str:
        await engine.wait_exit(container)
        return "\n".join([line.text async for line in engine.logs(container)])

    return read


async def run_in(engine: Supervisor, container: ContainerId, *args: str, **changes: Any) -> tuple[int, str]:
    """Exec without a terminal: exit code and everything printed."""
    session = await engine.exec(container, ExecSpec(args=args, **changes))
    try:
        output = b"".join([chunk async for _, chunk in session.output()])
        return await session.wait(), output.decode()
    finally:
        await session.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)

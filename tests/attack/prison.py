"""A prison: a host of its own with tenants in real containers, and attacks that are tried from inside.

`Prisoner` is a container of skep as any tenant has it.  `Prisoner.attack` runs a program inside;
`Prisoner.attack_without` runs the same program in a twin of the container, made from the very same OCI
config with one thing changed: what that change gives away is what the defence was worth.

Programs print a line `won` when they got what they wanted, and `lost: <why>` otherwise.
"""

import asyncio
import itertools
import json
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from tests.agent.conftest import Hive, NamedNamespaces

from skep.agent.teardown import teardown as end_containers
from skep.model.host import ContainerSpec, ExecSpec, NetworkConfig, PortConfig
from skep.model.ids import ContainerId, NetworkId, PortId, ReplicaId, TenantId, new_id
from skep.providers.local.network import LocalFabric
from skep.providers.local.network import teardown as end_networks
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import NETNS, Names

T = TypeVar("T")
Config = dict[str, Any]
Change = Callable[[Config], None]

HOST, OTHER_HOST, METADATA, WORLD = "192.0.2.1", "192.0.2.2", "169.254.169.254", "198.51.100.1"
"""This host, the next one, what knows the machines' secrets, and somebody on the other side of the world."""
UNDERLAY = IPv4Network("192.0.2.0/24")
LINKS = IPv4Network("100.66.0.0/16")
PROGRAMS = Path(__file__).parent / "programs"
_PATIENCE = 20.0


class Seen(msgspec.Struct, frozen=True):
    """What a program said, and how it ended."""

    code: int
    text: str

    @property
    def won(self) -> bool:
        return "won" in self.text.splitlines()

    @property
    def lost(self) -> str:
        """Why it lost; "" when it did not say so."""
        return next((line[6:] for line in self.text.splitlines() if line.startswith("lost: ")), "")


class Prison:
    """Everything on it is gone after `close`."""

    def __init__(self) -> None:
        self.base = Path("/run") / f"skep-test-{secrets.token_hex(4)}"
        self.base.mkdir()
        self.host = NETNS / f"{self.base.name}h"
        self.underlay = NETNS / f"{self.base.name}u"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[Any] = []
        self._numbers = itertools.count()

    def open(self) -> None:
        """Make the host, its fabric and its engine."""
        self._make_underlay()
        self.hive = Hive(self.base)
        _compile(self.hive.busybox / "attack")
        self.names = Names(self.hive.instance)
        self.namespaces = self._enter(Namespaces(self.host))
        self.fabric = self._enter(
            LocalFabric(
                instance=self.hive.instance,
                data=self.hive.data,
                link_pool=LINKS,
                upstream_dns=(OTHER_HOST,),
                private=(UNDERLAY,),
                host=self.host,
            )
        )
        self.hive.fabric = cast(NamedNamespaces, self.fabric)
        self.engine = self._enter(self.hive.supervisor())

    def close(self) -> None:
        try:
            for opened in reversed(self._opened):
                self.wait(opened.__aexit__(None, None, None))
            if hasattr(self, "hive"):
                self.wait(end_containers(self.hive.instance, self.hive.data, self.hive.run))
                self.wait(end_networks(self.hive.instance, self.hive.data, purge=True, host=self.host))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
            for namespace in (self.host, self.underlay):
                subprocess.run(["ip", "netns", "delete", namespace.name], check=False, capture_output=True)
            _remove_groups(f"{self.base.name}-twins")
            shutil.rmtree(self.base)

    def wait(self, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        """The result of what runs in the prison's own loop."""

        async def run() -> T:
            async with asyncio.timeout(_PATIENCE):
                return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_PATIENCE + 5)

    def admit(self, script: str = "exec sleep 1000", **changes: Any) -> "Prisoner":
        """Start a container; with `ports` in a sandbox that exists."""
        spec = self.hive.spec(script, **changes)
        self.wait(self.engine.start(spec))
        return Prisoner(self, spec)

    def admit_to(self, port: PortConfig, script: str = "exec sleep 1000", **changes: Any) -> "Prisoner":
        """Start a container that has this port."""
        self.hive.desired.ports[port.id] = port
        network = self.network_of(port)
        return self.admit(
            script, replica=port.replica, ports=(port.id,), nameserver=network.gateway, **changes
        )

    def dismiss(self, prisoner: "Prisoner") -> None:
        """Remove a container with its sandbox."""
        self.wait(self.engine.remove(prisoner.id))
        self.wait(self.fabric.remove_sandbox(prisoner.spec.replica))

    # -- networks ---------------------------------------------------------------------------------

    def network(self, index: int, subnet: str) -> NetworkConfig:
        """A tenant's network, made."""
        space = IPv4Network(subnet)
        config = NetworkConfig(
            id=NetworkId(new_id()),
            tenant=TenantId(new_id()),
            name="default",
            subnet=space,
            gateway=space[1],
            index=index,
        )
        self.wait(self.fabric.ensure_network(config))
        return config

    def plug(self, network: NetworkConfig, number: int, *names: str, app: str = "shop") -> PortConfig:
        """A port in the network, in a sandbox of its own."""
        port = PortConfig(
            id=PortId(new_id()),
            network=network.id,
            replica=ReplicaId(new_id()),
            address=network.subnet[number],
            mac=f"02:aa:00:00:{network.index:02x}:{number:02x}",
            app=app,
            names=names,
        )
        self.wait(self.fabric.plug(port))
        self.wait(self.fabric.set_resolvable(port.replica, up=True))
        return port

    def network_of(self, port: PortConfig) -> NetworkConfig:
        return self.fabric._routers.known(port.network)

    def sandbox(self, port: PortConfig) -> Path:
        return self.fabric.sandbox(port.replica)

    def router(self, network: NetworkConfig) -> Path:
        return self.names.router(network.id)

    def inside(self, namespace: Path, job: Callable[[], T]) -> T:
        """What the job answers in the network namespace."""
        return self.wait(self.namespaces.inside(namespace, job))

    def run_inside(self, namespace: Path, *command: str) -> str:
        """What a command of the host prints in the network namespace."""
        full = ["ip", "netns", "exec", namespace.name, *command]
        return subprocess.run(full, check=True, capture_output=True, text=True, timeout=30).stdout

    def serve(self, namespace: Path, address: str, port: int, answer: str) -> None:
        """Answer every connection there, until the prison is closed."""

        async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer.encode() + b"\n")
            writer.close()

        listener = self.inside(namespace, lambda: _listener(address, port))

        async def start() -> asyncio.Server:
            return await asyncio.start_server(said, sock=listener)

        self._opened.append(self._enter_server(self.wait(start())))

    @contextmanager
    def without_rule(self, namespace: Path, table: str, chain: str, text: str) -> Iterator[None]:
        """One packet rule is taken away; afterwards the fabric puts everything in order again."""
        listed = self.run_inside(namespace, "nft", "-a", "list", "chain", *table.split(), chain)
        handles = [
            line.rsplit(" ", 1)[1] for line in listed.splitlines() if text in line and "# handle" in line
        ]
        assert handles, f"no rule with {text!r} in:\n{listed}"
        try:
            for handle in handles:
                self.run_inside(namespace, "nft", "delete", "rule", *table.split(), chain, "handle", handle)
            yield
        finally:
            self.restore()

    @contextmanager
    def without_table(self, namespace: Path, table: str) -> Iterator[None]:
        try:
            self.run_inside(namespace, "nft", "delete", "table", *table.split())
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        for network in tuple(self.fabric._state.networks.values()):
            self.wait(self.fabric.ensure_network(network))

    # -- twins ------------------------------------------------------------------------------------

    def run_twin(self, config: Config, *, leak: Path | None = None) -> Seen:
        """Run a container from this config to its end; it may get a folder of the host as descriptor 3."""
        name = f"twin-{next(self._numbers)}"
        folder = self.base / "twins" / name
        folder.mkdir(parents=True)
        config["linux"]["cgroupsPath"] = f"/{self.base.name}-twins/{name}"
        (folder / "config.json").write_text(json.dumps(config))
        command = [str(self.hive.runtime.binary), f"--root={self.base}/twin-state"]
        opened = ["/bin/sh", "-c", 'exec 3< "$0"; exec "$@"', str(leak)] if leak else []
        options = ["--preserve-fds=1"] if leak else []
        try:
            done = subprocess.run(
                [*opened, *command, "run", *options, f"--bundle={folder}", name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_PATIENCE,
                check=False,
            )
            return Seen(done.returncode, done.stdout.decode(errors="replace"))
        finally:
            subprocess.run([*command, "delete", "--force", name], check=False, capture_output=True)

    def _enter(self, manager: T) -> T:
        self.wait(cast(Any, manager).__aenter__())
        self._opened.append(manager)
        return manager

    def _enter_server(self, server: asyncio.Server) -> "_Closing":
        return _Closing(server)

    def _make_underlay(self) -> None:
        """The host's namespace and the physical network beyond its default route."""
        host, beyond = self.host.name, self.underlay.name
        for name in (host, beyond):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", host, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", beyond)
        _ip("-n", host, "address", "add", f"{HOST}/24", "dev", "out")
        for address in (f"{OTHER_HOST}/24", f"{METADATA}/32", f"{WORLD}/32"):
            _ip("-n", beyond, "address", "add", address, "dev", "in")
        for name, nic in ((host, "out"), (beyond, "in")):
            _ip("-n", name, "link", "set", nic, "up")
        _ip("-n", host, "route", "add", "default", "via", OTHER_HOST)


class Prisoner:
    """A tenant's container."""

    def __init__(self, prison: Prison, spec: ContainerSpec) -> None:
        self.prison = prison
        self.spec = spec

    @property
    def id(self) -> ContainerId:
        return self.spec.id

    @property
    def bundle(self) -> Path:
        return self.prison.hive.runtime.bundle(self.id)

    @property
    def pid(self) -> int:
        """The container's first process, as the machine counts."""
        return self.prison.hive.runtime.pid(self.id) or 0

    @property
    def rootfs(self) -> Path:
        return self.bundle / "rootfs"

    def attack(self, *args: str, **changes: Any) -> Seen:
        """Run a program inside, as `skep exec` does."""
        return self.prison.wait(self._exec(ExecSpec(args=args, **changes)))

    def shell(self, script: str, **changes: Any) -> Seen:
        return self.attack("/bin/sh", "-c", f"({script}) 2>&1", **changes)

    def attack_without(self, change: Change, *args: str) -> Seen:
        """Run it in a twin: the same config, changed by `change`."""
        config = self.config()
        config["process"]["args"] = list(args)
        change(config)
        return self.prison.run_twin(config)

    def config(self) -> Config:
        """A copy of what the runtime was told."""
        config: Config = json.loads((self.bundle / "config.json").read_text())
        config["process"]["terminal"] = False
        return config

    async def _exec(self, spec: ExecSpec) -> Seen:
        session = await self.prison.engine.exec(self.id, spec)
        try:
            output = b"".join([chunk async for _, chunk in session.output()])
            return Seen(await session.wait(), output.decode(errors="replace"))
        finally:
            await session.close()


class _Closing:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def _compile(folder: Path) -> None:
    """Every program, static, so that it runs in any container."""
    folder.mkdir()
    running = [
        subprocess.Popen(["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", folder / source.stem, source])
        for source in sorted(PROGRAMS.glob("*.c"))
    ]
    for compiler in running:
        assert compiler.wait(60) == 0, compiler.args


def _listener(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(64)
    made.setblocking(False)
    return made


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, timeout=30)


def _remove_groups(name: str) -> None:
    for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        group.rmdir()

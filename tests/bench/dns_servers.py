"""The servers that `make bench-dns` compares, each for one network in the namespace of its gateway.

Ours as hosts have it; unbound with a view for each app (who asks decides what a name means); dnsmasq, the
smallest, which knows no askers.  `python -m tests.bench.dns_servers NAMESPACE...` is our server: it reads
`add NAME ADDRESS` lines.
"""

import asyncio
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
from tests.providers.network.conftest import network, port

from skep.model.host import PortConfig
from skep.providers.local.network.directory import Directory
from skep.providers.local.network.dns import Resolver
from skep.providers.local.network.forward import Forwarder
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import NETNS

GATEWAY = "10.1.0.1"
APPS = ("shop", "blog")
REPLICAS = 250
"""Of each app; each has a name of its own and that of its service."""


def ports(replicas: int = REPLICAS) -> list[PortConfig]:
    net = network(1, "10.1.0.0/16")
    return [
        port(net, 256 * (1 + which) + number, app, (f"web-{number}", f"{app}-{number % 10}"))
        for which, app in enumerate(APPS)
        for number in range(replicas)
    ]


class Server(ABC):
    """A running server of one network."""

    name: str
    process: "subprocess.Popen[str]"

    @abstractmethod
    def add(self, name: str, address: str) -> None:
        """Let the name lead to the address."""

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)

    def seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory(self) -> float:
        """Its own part in MiB: what it shares with others counts in parts."""
        rows = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024


class Ours(Server):
    name = "skep"

    def __init__(self, *namespaces: str, replicas: int = REPLICAS) -> None:
        command = [sys.executable, "-m", __name__, str(replicas), *namespaces]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def add(self, name: str, address: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {address}\n")
        self.process.stdin.flush()


class Unbound(Server):
    name = "unbound"

    def __init__(self, namespace: str, folder: Path, replicas: int = REPLICAS) -> None:
        self._control = folder / f"{namespace}.sock"
        config = folder / f"{namespace}.conf"
        config.write_text(_unbound(self._control, ports(replicas)))
        command = ["ip", "netns", "exec", namespace, "unbound", "-d", "-c", str(config)]
        self.process = subprocess.Popen(command, text=True, stderr=subprocess.DEVNULL)
        _await(namespace)

    def add(self, name: str, address: str) -> None:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self._control))
            channel.sendall(f"UBCT1 view_local_data {APPS[0]} {name}. 5 IN A {address}\n".encode())
            assert channel.recv(100).startswith(b"ok")


class Dnsmasq(Server):
    name = "dnsmasq"

    def __init__(self, namespace: str, folder: Path, replicas: int = REPLICAS) -> None:
        self._hosts = folder / f"{namespace}.hosts"
        self._hosts.mkdir()
        lines = [f"{one.address} {name} {name}.{one.app}" for one in ports(replicas) for name in one.names]
        (self._hosts / "all").write_text("\n".join(lines) + "\n")
        options = ["--no-daemon", "--no-resolv", "--no-hosts", "--user=root", "--local-ttl=5", "--pid-file="]
        options += [
            f"--hostsdir={self._hosts}",
            "--listen-address=" + GATEWAY,
            "--bind-interfaces",
            "--conf-file=",
        ]
        command = ["ip", "netns", "exec", namespace, "dnsmasq", *options]
        self.process = subprocess.Popen(command, text=True, stderr=subprocess.DEVNULL)
        _await(namespace)

    def add(self, name: str, address: str) -> None:
        (self._hosts / name).write_text(f"{address} {name}\n")


def _unbound(control: Path, known: list[PortConfig]) -> str:
    """What each app sees, written out: its own names, those of others that only one has, and whole names."""
    bare: dict[str, set[str]] = {}
    for one in known:
        for name in one.names:
            bare.setdefault(name, set()).add(one.app)
    views = []
    for app in APPS:
        seen = [
            f'  local-data: "{name}. 5 IN A {one.address}"'
            for one in known
            for short in one.names
            for name in (short, f"{short}.{one.app}")
            if name != short or one.app == app or bare[short] == {one.app}
        ]
        views.append(f'view:\n  name: "{app}"\n  view-first: no\n' + "\n".join(seen))
    asking = "\n".join(f"  access-control-view: {one.address}/32 {one.app}" for one in known)
    return (
        f'server:\n  interface: {GATEWAY}\n  access-control: 10.1.0.0/16 allow\n{asking}\n  chroot: ""\n'
        '  username: ""\n  directory: "/"\n  pidfile: ""\n  use-syslog: no\n  verbosity: 0\n'
        '  num-threads: 1\n  module-config: "iterator"\n'
        "  msg-cache-size: 1m\n  rrset-cache-size: 1m\n  key-cache-size: 0\n"
        f"remote-control:\n  control-enable: yes\n  control-interface: {control}\n  control-use-cert: no\n"
        + "\n".join(views)
        + "\n"
    )


def _await(namespace: str) -> None:
    """Until something is bound to port 53 there."""
    end = time.monotonic() + 20
    command = ["ip", "netns", "exec", namespace, "cat", "/proc/net/udp"]
    while ":0035 " not in subprocess.run(command, capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < end, "the server does not listen"
        time.sleep(0.02)


async def serve(replicas: int, namespaces: list[str]) -> None:
    net, loop = network(1, "10.1.0.0/16"), asyncio.get_running_loop()
    async with Namespaces() as rooms:
        forwarder, directories = Forwarder(rooms, ()), []
        for name in namespaces:
            directories.append(Directory(lambda _replica: True))
            for one in ports(replicas):
                directories[-1].add(one)
            await Resolver(net, NETNS / name, directories[-1], rooms, forwarder).__aenter__()
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, address = line.split()
            fresh = msgspec.structs.replace(port(net, 5, APPS[0], (name, name)), address=IPv4Address(address))
            directories[0].add(fresh)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2:]))

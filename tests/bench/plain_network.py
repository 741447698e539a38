"""What others would make by hand, to compare with: a bridge, and two bridges joined by a VXLAN device that
learns.  No rules, no names, no fixed addresses."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from skep.providers.local.network.naming import NETNS

NAT = """table inet plain {
  chain leaving {
    type nat hook postrouting priority srcnat;
    ip saddr 10.8.0.0/24 masquerade
  }
}
"""
"""The least that lets containers out."""

FIRST, SECOND = "10.9.0.1", "10.9.0.2"


class Namespaces:
    """Namespaces of one prefix, deleted at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._prefix = f"pb{secrets.token_hex(3)}"

    def make(self, name: str) -> Path:
        path = NETNS / (self._prefix + name)
        ip("netns", "add", path.name)
        self._stack.callback(subprocess.run, ["ip", "netns", "delete", path.name], capture_output=True)
        ip("-n", path.name, "link", "set", "lo", "up")
        return path


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@contextmanager
def plain_bridge(mtu: int) -> Iterator[tuple[Path, Path]]:
    """Two namespaces on one bridge."""
    with ExitStack() as stack:
        made = Namespaces(stack)
        host = made.make("h")
        _bridge(host, mtu)
        yield _end(made, host, "a", FIRST, mtu), _end(made, host, "b", SECOND, mtu)


@contextmanager
def plain_vxlan(mtu: int, *, nat: bool = False) -> Iterator[tuple[Path, Path]]:
    """Two namespaces on bridges of two hosts; the hosts are joined by a third bridge, as skep's are.

    `nat`: the hosts masquerade what leaves them, as every host does that lets containers out.
    """
    with ExitStack() as stack:
        made = Namespaces(stack)
        under = made.make("u")
        ip("-n", under.name, "link", "add", "br0", "mtu", str(mtu), "type", "bridge")
        ip("-n", under.name, "link", "set", "br0", "up")
        ends = []
        for number, address in ((1, FIRST), (2, SECOND)):
            host = made.make(f"h{number}")
            _cable(host, under, number, mtu)
            _bridge(host, mtu - 50)
            if nat:
                nft = ["ip", "netns", "exec", host.name, "nft", "-f", "-"]
                subprocess.run(nft, input=NAT, text=True, check=True, capture_output=True, timeout=30)
            other = f"198.51.100.{3 - number}"
            own = ["local", f"198.51.100.{number}", "remote", other]
            ip("-n", host.name, "link", "add", "vx0", "type", "vxlan", "id", "9", "dstport", "4789", *own)
            ip("-n", host.name, "link", "set", "vx0", "mtu", str(mtu - 50), "master", "br0", "up")
            ends.append(_end(made, host, f"c{number}", address, mtu - 50))
        yield ends[0], ends[1]


def _bridge(host: Path, mtu: int) -> None:
    ip("-n", host.name, "link", "add", "br0", "mtu", str(mtu), "type", "bridge")
    ip("-n", host.name, "link", "set", "br0", "up")


def _cable(host: Path, under: Path, number: int, mtu: int) -> None:
    peer = ["peer", "name", f"h{number}", "mtu", str(mtu), "netns", under.name]
    ip("-n", host.name, "link", "add", "under", "mtu", str(mtu), "type", "veth", *peer)
    ip("-n", host.name, "address", "add", f"198.51.100.{number}/24", "dev", "under")
    ip("-n", host.name, "link", "set", "under", "up")
    ip("-n", under.name, "link", "set", f"h{number}", "master", "br0", "up")


def _end(made: Namespaces, host: Path, name: str, address: str, mtu: int) -> Path:
    end = made.make(name)
    peer = ["peer", "name", "eth0", "mtu", str(mtu), "netns", end.name]
    ip("-n", host.name, "link", "add", "name", f"to{name}", "mtu", str(mtu), "type", "veth", *peer)
    ip("-n", host.name, "link", "set", f"to{name}", "master", "br0", "up")
    ip("-n", end.name, "address", "add", f"{address}/24", "dev", "eth0")
    ip("-n", end.name, "link", "set", "eth0", "up")
    return end

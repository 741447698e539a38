"""Network interfaces of the calling thread's namespace: changed by one `ip -batch`, read by ioctl.

The ioctl numbers and layouts are those of netdevice(7); reading a NIC so costs microseconds, and the
reconcilers read all of them again and again.
"""

import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure

_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFMTU, _SIOCGIFHWADDR = 0x8913, 0x8915, 0x8921, 0x8927
_IFF_UP = 1
_NEIGHBOUR_LIMITS = {"gc_thresh3": 262_144, "gc_thresh2": 131_072, "gc_thresh1": 65_536}
"""About 100 MB at worst."""
CONNECTIONS = (("netfilter/nf_conntrack_tcp_timeout_time_wait", "20"),)
"""How long the host remembers a closed connection: 120 s would let a network fill the table by closing."""


class Nic(msgspec.Struct, frozen=True):
    """An interface as it is now."""

    up: bool
    mac: str
    mtu: int
    address: IPv4Address | None


def ip(*commands: str) -> None:
    """Carry out the commands of ip(8) in order, up to the first that fails (HostFailure)."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(commands) + "\n", text=True, capture_output=True, timeout=60
    )
    if done.returncode:
        raise HostFailure(f"ip: {' '.join(done.stderr.split())[:500]}")


def number(name: str) -> int:
    """The index of the interface; 0: there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def there(name: str) -> bool:
    return number(name) != 0


def delete(*names: str) -> None:
    """Delete those of the interfaces that exist; the kernel may be doing so at the same time."""
    for name in filter(there, names):
        try:
            ip(f"link delete dev {name}")
        except HostFailure:
            if there(name):
                raise


def nic(name: str) -> Nic | None:
    """The interface, or None when there is none of this name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        try:
            (flags,) = struct.unpack_from("H", _ask(control, _SIOCGIFFLAGS, name), 16)
            mac = _ask(control, _SIOCGIFHWADDR, name)[18:24]
            (mtu,) = struct.unpack_from("i", _ask(control, _SIOCGIFMTU, name), 16)
        except OSError:
            return None
        try:
            address = IPv4Address(_ask(control, _SIOCGIFADDR, name)[20:24])
        except OSError:
            address = None
        return Nic(bool(flags & _IFF_UP), mac.hex(":"), mtu, address)


def is_up(name: str, address: IPv4Address | None, mac: str | None = None, mtu: int | None = None) -> bool:
    """Whether it is up and has these; None: its address may be any."""
    found = nic(name)
    return (
        found is not None
        and found.up
        and address in (None, found.address)
        and (mac is None or found.mac == mac.lower())
        and (mtu is None or found.mtu == mtu)
    )


def is_running(name: str) -> bool:
    found = nic(name)
    return found is not None and found.up


def default_routes() -> set[tuple[str, IPv4Address]]:
    """Interface and gateway of every default route (/proc/net/route: addresses in native byte order)."""
    rows = [line.split() for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]]
    return {
        (row[0], IPv4Address(struct.pack("=I", int(row[2], 16))))
        for row in rows
        if row[1] == row[7] == "00000000"
    }


def bridge_members(bridge: str) -> set[str]:
    """The interfaces that are up with their other end, and belong to the bridge."""
    done = subprocess.run(
        ["ip", "-json", "link", "show", "master", bridge], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        return set()
    listed = msgspec.json.decode(done.stdout or "[]", type=list[_Listed])
    return {link.ifname for link in listed if "LOWER_UP" in link.flags}


class _Listed(msgspec.Struct):
    ifname: str = ""
    flags: list[str] = []
    mtu: int = 1500


def default_mtu() -> int:
    """The MTU of the interface the default route leads to; 1500 without one."""
    found = [nic(name) for name, _ in sorted(default_routes())]
    return next((one.mtu for one in found if one), 1500)


def mtu_at(address: IPv4Address) -> int | None:
    """The MTU of the interface that has the address; None: this namespace does not have it."""
    done = subprocess.run(
        ["ip", "-json", "address", "show", "to", str(address)], capture_output=True, text=True, timeout=60
    )
    listed = msgspec.json.decode(done.stdout or "[]", type=list[_Listed])
    return next((link.mtu for link in listed if link.ifname), None)


def sysctl(settings: Iterable[tuple[str, str]]) -> None:
    """Set keys below net/ of this namespace; a key this kernel does not have is skipped."""
    for key, value in settings:
        path = Path("/proc/sys/net", key)
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def raise_neighbour_limits() -> None:
    """Let the machine know as many neighbours as its tenants can ask for.

    One table serves all namespaces, with room for 1,024 at first: a container that looks for everybody in
    its /20 would leave none for the others.  Limits that are higher already stay; only the machine's own
    namespace shows them (kernel: net/core/neighbour.c).
    """
    for family in ("ipv4", "ipv6"):
        for name, most in _NEIGHBOUR_LIMITS.items():
            path = Path("/proc/sys/net", family, "neigh/default", name)
            if path.exists() and int(path.read_text()) < most:
                path.write_text(str(most))


def _ask(control: socket.socket, request: int, name: str) -> bytes:
    return fcntl.ioctl(control, request, struct.pack("16s24x", name.encode()[:15]))

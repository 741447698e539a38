"""The network of builds: one namespace per instance with a way out and nothing else.

Packages must be fetched while building, but a Dockerfile is a stranger's program: it reaches neither the
host, nor tenants, nor the link-local addresses where clouds keep their credentials.
"""

import asyncio
import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from skep.model.errors import HostFailure
from skep.providers.local.commands import run

_NETNS = Path("/run/netns")
_RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
_SUBNET = IPv4Network("100.127.255.252/30")
_NEVER = (IPv4Network("169.254.0.0/16"), IPv4Network("127.0.0.0/8"))


class BuildNetwork:
    """`subnet` (a /30 or larger) joins namespace and host; builds do not reach what is `refused`."""

    def __init__(
        self,
        *,
        instance: str,
        subnet: IPv4Network = _SUBNET,
        refused: tuple[IPv4Network, ...] = (),
    ) -> None:
        self._namespace = f"{instance}-build"
        self._link = f"{instance[:11]}-bld"
        self._table = f"{instance}_build".replace("-", "_")
        self._subnet = subnet
        self._refused = refused
        self._lock = asyncio.Lock()

    @property
    def path(self) -> Path:
        return _NETNS / self._namespace

    async def ensure(self) -> None:
        """Make what is missing.  Raises HostFailure: the kernel refuses."""
        async with self._lock:
            if not await self._is_whole():
                await self._remove_link_and_namespace()
                await self._make()
            await run("nft", "-f", "-", stdin=self._rules().encode())

    async def teardown(self) -> None:
        """Remove namespace, link and rules.  Absent is success."""
        async with self._lock:
            await self._remove_link_and_namespace()
            await run(
                "nft", "-f", "-", stdin=f"table inet {self._table}; delete table inet {self._table};".encode()
            )

    async def _is_whole(self) -> bool:
        try:
            await run("ip", "link", "show", self._link)
            await run("nsenter", f"--net={self.path}", "ip", "link", "show", "eth0")
        except HostFailure:
            return False
        return True

    async def _remove_link_and_namespace(self) -> None:
        for command in (("ip", "link", "delete", self._link), ("ip", "netns", "delete", self._namespace)):
            try:
                await run(*command)
            except HostFailure as error:
                if not any(sign in error.message for sign in ("Cannot find", "No such file")):
                    raise

    async def _make(self) -> None:
        host, inside = list(self._subnet.hosts())[:2]
        width = self._subnet.prefixlen
        await run("ip", "netns", "add", self._namespace)
        outer = (
            f"link add {self._link} type veth peer name eth0 netns {self._namespace}",
            f"address add {host}/{width} dev {self._link}",
            f"link set {self._link} up",
        )
        await run("ip", "-batch", "-", stdin="\n".join(outer).encode())
        inner = (
            "link set lo up",
            f"address add {inside}/{width} dev eth0",
            "link set eth0 up",
            f"route add default via {host}",
        )
        await run("ip", "-netns", self._namespace, "-batch", "-", stdin="\n".join(inner).encode())
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _rules(self) -> str:
        """Replaces the whole table in one transaction."""
        servers = ", ".join(str(server) for server in upstream_servers())
        dns = [
            f"iifname {self._link} ip daddr {{ {servers} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
        ]
        refused = ", ".join(str(net) for net in ipaddress.collapse_addresses([*self._refused, *_NEVER]))
        chains = {
            "input": [
                "type filter hook input priority -10;",
                *(dns if servers else ()),
                f"iifname {self._link} drop",
            ],
            "forward": [
                "type filter hook forward priority -10;",
                *(dns if servers else ()),
                f"iifname {self._link} ip daddr {{ {refused} }} drop",
                f"iifname {self._link} meta nfproto ipv6 drop",
                f"oifname {self._link} ct state established,related accept",
                f"oifname {self._link} drop",
            ],
            "postrouting": [
                "type nat hook postrouting priority srcnat;",
                f"ip saddr {self._subnet} oifname != {self._link} masquerade",
            ],
        }
        body = "\n".join(f"chain {name} {{\n" + "\n".join(rules) + "\n}" for name, rules in chains.items())
        fresh = f"table inet {self._table}\ndelete table inet {self._table}\n"
        return f"{fresh}table inet {self._table} {{\n{body}\n}}\n"


def upstream_servers(files: Iterable[Path] = _RESOLVERS) -> tuple[IPv4Address, ...]:
    """The name servers of the host that can be reached from another namespace: no loopback, IPv4 only."""
    for file in files:
        if file.exists() and (found := parse_servers(file.read_text())):
            return found
    return ()


def parse_servers(text: str) -> tuple[IPv4Address, ...]:
    """The usable `nameserver` lines of a resolv.conf(5)."""
    words = (line.split() for line in text.splitlines())
    named = (line[1] for line in words if len(line) > 1 and line[0] == "nameserver")
    servers = (ipaddress.ip_address(name) for name in named if _is_address(name))
    return tuple(server for server in servers if isinstance(server, IPv4Address) and not server.is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

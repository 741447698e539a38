"""The wires of a data centre in a box: a bridge, and for each host a namespace with an address on it.

The bridge has the subnet's first address, through which control is reached, and which is the hosts' way out.
Every name carries the instance.  Making what is there is success, and so is removing what is absent.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from skep.model.errors import Conflict
from skep.model.ids import HostName
from skep.providers.local.network import links, nft
from skep.providers.local.network.namespaces import Namespaces, exists
from skep.providers.local.network.naming import NETNS, Names

FIRST_HOST = 10
"""The address before that of the first host, in the subnet."""
_HOST = Path("/proc/self/ns/net")
_NIC = "eth0"


class Underlay:
    """Open it with `async with`; what it makes stays until `remove`.  Needs root."""

    def __init__(self, instance: str, subnet: IPv4Network) -> None:
        names = Names(instance)
        self._instance = instance
        self._table = f"{instance}-box"
        self._subnet = subnet
        self._wires = names.uplinks[:4] + "h"
        self._bridge = names.uplinks[:4] + "under"
        self._namespaces = Namespaces(_HOST)

    async def __aenter__(self) -> "Underlay":
        await self._namespaces.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._namespaces.__aexit__(None, None, None)

    @property
    def gateway(self) -> IPv4Address:
        """Where control is."""
        return self._subnet[1]

    def address(self, number: int) -> IPv4Address:
        """Of the host with this number, from 1."""
        return self._subnet[FIRST_HOST + number]

    def namespace(self, host: HostName) -> Path:
        return NETNS / f"{self._instance}-{host}"

    async def make(self, hosts: Iterable[tuple[int, HostName]]) -> None:
        """The bridge, and the namespace of each host with its wire; numbers are from 1.

        Raises:
            Conflict: the machine is on that subnet already.
        """
        await self._namespaces.on_host(self._make_bridge)
        for number, host in hosts:
            await self._make_host(number, host)

    async def cut(self, number: int) -> None:
        """Pull the host's cable."""
        await self._namespaces.on_host(lambda: links.ip(f"link set {self._wire(number)} down"))

    async def mend(self, number: int) -> None:
        await self._namespaces.on_host(lambda: links.ip(f"link set {self._wire(number)} up"))

    def is_connected(self, number: int) -> bool:
        """Whether the host's cable is in; called in the machine's own namespace."""
        found = links.nic(self._wire(number))
        return found is not None and found.up

    async def remove(self) -> None:
        """Every namespace and wire, with the bridge and its rules."""
        for path in NETNS.glob(f"{self._instance}-host-*"):
            await self._namespaces.remove(path)
        await self._namespaces.on_host(self._remove_bridge)

    def _wire(self, number: int) -> str:
        return f"{self._wires}{number}"

    def _make_bridge(self) -> None:
        if not links.there(self._bridge):
            self._must_be_free()
            links.ip(f"link add name {self._bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        links.ip(
            f"address replace {self.gateway}/{self._subnet.prefixlen} dev {self._bridge}",
            f"link set {self._bridge} up",
        )
        links.sysctl([("ipv4/ip_forward", "1"), ("bridge/bridge-nf-call-iptables", "0")])
        nft.reconcile((self._way_out(),))

    def _must_be_free(self) -> None:
        for path in Path("/sys/class/net").iterdir():
            found = links.nic(path.name)
            if found is not None and found.address is not None and found.address in self._subnet:
                raise Conflict(
                    f"The underlay {self._subnet} is taken: {path.name} has {found.address}. Set "
                    "'box_underlay' (SKEP_BOX_UNDERLAY) to a network that this machine does not use."
                )

    def _way_out(self) -> nft.Table:
        rule = f"ip saddr {self._subnet} ip daddr != {self._subnet} masquerade"
        hook = "type nat hook postrouting priority srcnat; policy accept;"
        return nft.Table("inet", self._table, (), (nft.Chain("leaving", (rule,), hook),))

    async def _make_host(self, number: int, host: HostName) -> None:
        path, wire = self.namespace(host), self._wire(number)
        new = not exists(path)
        await self._namespaces.create(path, lambda: links.ip("link set lo up"))
        if new or not await self._namespaces.on_host(lambda: links.there(wire)):
            await self._namespaces.on_host(lambda: self._make_wire(wire, path))
        address = f"{self.address(number)}/{self._subnet.prefixlen}"
        await self._namespaces.inside(
            path,
            lambda: links.ip(
                f"address replace {address} dev {_NIC}",
                f"link set {_NIC} up",
                f"route replace default via {self.gateway} dev {_NIC}",
            ),
        )

    def _make_wire(self, wire: str, path: Path) -> None:
        links.delete(wire)
        links.ip(f"link add name {wire} master {self._bridge} up type veth peer name {_NIC} netns {path}")

    def _remove_bridge(self) -> None:
        links.delete(self._bridge)
        if ("inet", self._table) in nft.tables():
            nft.commit(f"delete table inet {self._table}")

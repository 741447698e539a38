"""Where the addresses of services lead, for people: who gets new connections, and what share."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.networks.tracing import End
from skep.control.telling.virtual_ips import NOTHING, virtual_maps
from skep.model.host import PeersInForce, VirtualIp
from skep.model.ids import HostName, NetworkId, TenantId
from skep.model.views.networks import HopView, PlaceView
from skep.store import clusters, hosts, virtual_ips
from skep.store.networks import AttachmentRow

_ANY = HostName("")
"""All machines are told the same."""


class Share(msgspec.Struct, frozen=True):
    """A replica and what it gets of new connections, in percent."""

    replica: str
    percent: int

    def __str__(self) -> str:
        return f"{self.replica} ({self.percent} %)"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A service, `app/name`, on one network.  `digest` is of all that hosts must know of that network."""

    network: NetworkId
    address: IPv4Address
    service: str
    backends: tuple[Share, ...]
    digest: str


async def read(
    connection: AsyncConnection,
    chosen: Collection[NetworkId],
    tenant: TenantId,
    attached: Iterable[AttachmentRow],
) -> list[Way]:
    """The ways to the tenant's services on the chosen networks; `attached` is who is on these."""
    rows, ports = await virtual_ips.named(connection, chosen), list(attached)
    members = await virtual_ips.members(connection, chosen)
    silent = {row.name for row in await hosts.every(connection) if not row.answers}
    services = {
        (row.network_id, IPv4Address(row.address)): f"{row.app}/{row.service}"
        for row in rows
        if row.tenant_id == tenant
    }
    names = {(row.network_id, IPv4Address(row.address)): row.replica for row in ports}
    standing = {row.host for row in await clusters.every(connection)}
    maps = virtual_maps(0, rows, ports, members, silent, clusters=standing)
    return [
        Way(
            network=network,
            address=one.address,
            service=services[network, one.address],
            backends=_shares(one, {address: name for (on, address), name in names.items() if on == network}),
            digest=found.digest_from(_ANY),
        )
        for network, found in maps.items()
        for one in found.seen_from(_ANY).virtual_ips
        if (network, one.address) in services
    ]


def _shares(one: VirtualIp, names: Mapping[IPv4Address, str]) -> tuple[Share, ...]:
    total = sum(backend.weight for backend in one.backends)
    shares = (
        Share(names[backend.address], round(100 * backend.weight / total))
        for backend in one.backends
        if backend.weight
    )
    return tuple(sorted(shares, key=lambda share: share.replica))


def way(known: Iterable[Way], source: End, target: str) -> Way | None:
    """How `source` reaches the service, on a network that it is on."""
    return next((one for one in known if one.service == target and one.network in source.ports), None)


def hop(source: End, found: Way, told: Mapping[NetworkId, PeersInForce] | None) -> HopView:
    """What happens to a connection in the sandbox of who begins it."""
    digest = told[found.network].digest if told and found.network in told else NOTHING
    whose = f"{found.address}, the virtual IP of {found.service}"
    if told is None:
        what = f"{source.host.name} did not say where it leads connections"
    elif digest != found.digest:
        what = f"not yet told where {whose}, leads now; within seconds it is"
    elif not found.backends:
        what = f"connections to {whose}, are refused at once: no replica of it serves"
    else:
        listed = ", ".join(map(str, found.backends))
        what = f"new connections to {whose}, are led to {listed}; the way to the first:"
        return HopView(at=source.host.name, what=what, passes=True)
    return HopView(at=source.host.name, what=what, passes=False)


def place(found: Way, network: str) -> PlaceView:
    return PlaceView(
        network=network,
        address=str(found.address),
        replica=found.service,
        host="",
        host_state="",
        up=bool(found.backends),
        leads_to=tuple(map(str, found.backends)),
    )

"""Whether a network, disk or port that is there is the one an app means.  Pure.

Neither changes while it is in use, so what an app would have otherwise now is refused, not passed over.
"""

from ipaddress import IPv4Address, IPv6Address, ip_network

from skep.control.plans.subnets import of_family, ranges
from skep.model.errors import Conflict
from skep.model.ids import AppId
from skep.model.spec import AppNetwork, AppVolume, NetworkAttachment
from skep.store.disks import DiskRow
from skep.store.networks import NetworkRow, PortRow


def network_must_fit(row: NetworkRow, app: AppId, wanted: AppNetwork) -> None:
    """Raises Conflict: the network is another app's (`a_b` + `c`, `a` + `b_c`), or is wanted otherwise."""
    if row.app_id != app:
        raise Conflict(f"Network {row.name!r} belongs to another app: give yours another name.")
    changed = wanted.internal != row.internal or wanted.gateway not in (None, row.gateway)
    if changed or (wanted.subnet is not None and not _equal(wanted.subnet, row.subnet)):
        kind = "internal" if row.internal else "not internal"
        raise Conflict(
            f"Network {row.name!r} stays what it is while it exists: {kind}, with subnet {row.subnet} and "
            f"gateway {row.gateway}. Give the new one another name, or remove the app first."
        )
    there = [(str(one.cidr), str(one.gateway)) for one in ranges(row)]
    for one in wanted.subnets:
        if not any(_equal(one.subnet, cidr) and one.gateway in (None, gateway) for cidr, gateway in there):
            raise Conflict(
                f"Network {row.name!r} has no subnet {one.subnet} with this gateway. Say 'skep net subnet "
                f"add {row.name} {one.subnet}', which touches nothing that runs, and apply again."
            )
    if wanted.enable_ipv6 and not of_family(row, 6):
        raise Conflict(
            f"Network {row.name!r} has no IPv6. Say 'skep net subnet add {row.name} CIDR' with an IPv6 "
            "subnet, and apply again: replicas that are made from then on have such an address."
        )


def disk_must_fit(
    row: DiskRow | None,
    app: AppId,
    before: AppVolume | None,
    wanted: AppVolume | None,
    *,
    shrinks: bool = True,
) -> None:
    """Raises Conflict: the disk is another app's, or its size was changed where that does nothing.

    `before` is the volume in the current release: a disk that was resized since then is not asked about.
    `shrinks`: whether it is where disks may become smaller.
    """
    if row is None:
        return
    if row.app_id not in (None, app):
        raise Conflict(
            f"Disk {row.name!r} belongs to another app: give the volume another name, or share the disk by "
            "naming it as an external volume."
        )
    size = wanted.size if wanted else None
    if before is None or size is None or size in (before.size, row.size):
        return
    if size < row.size and not shrinks:
        raise Conflict(
            f"Disk {row.name!r} has {row.size} bytes, the volume wants {size}, and disks of a cluster do not "
            "become smaller: leave it as large as it is, or give the volume another name."
        )
    raise Conflict(
        f"Disk {row.name!r} has {row.size} bytes, and the volume wants {size}: say "
        f"'skep disk resize {row.name} {size}' and apply again."
    )


def port_must_fit(row: PortRow, replica: str, network: str, position: int, wanted: NetworkAttachment) -> None:
    """Raises Conflict: the replica's NIC on the network would have to become another one."""
    if row.position != position:
        raise networks_changed(replica)
    if wanted.ipv4_address is not None and int(IPv4Address(wanted.ipv4_address)) != row.address:
        raise Conflict(
            f"{replica} keeps its address {IPv4Address(row.address)} on network {network!r} while it exists, "
            f"and cannot become {wanted.ipv4_address}: remove the service, apply, add it again."
        )
    if wanted.ipv6_address is not None and int(IPv6Address(wanted.ipv6_address)) != row.address6:
        now = IPv6Address(row.address6) if row.address6 else "none of IPv6"
        raise Conflict(
            f"{replica} keeps its address on network {network!r} while it exists ({now}), and cannot become "
            f"{wanted.ipv6_address}: remove the service, apply, add it again."
        )
    if wanted.mac_address is not None and wanted.mac_address.lower() != row.mac:
        raise Conflict(f"{replica} keeps its MAC {row.mac} on network {network!r} for as long as it exists.")


def networks_changed(replica: str) -> Conflict:
    """More networks may follow those a replica has, and the last ones may go; the first stay in place."""
    return Conflict(
        f"The first networks of {replica} changed, and with them its addresses and its way out. That takes a "
        "new replica: remove the service from the file, apply, add it again, apply (named volumes stay)."
    )


def _equal(one: str, other: str) -> bool:
    try:
        return ip_network(one) == ip_network(other)
    except ValueError:
        return False

"""Networks as the API shows them."""

from collections.abc import Sequence
from ipaddress import IPv4Address

import msgspec

from skep.control.callers import Caller
from skep.control.clock import rfc3339
from skep.control.naming import scope
from skep.control.networks.addresses import Reserved, count_reserved
from skep.control.networks.reservations import reservation_view
from skep.control.networks.tracing import six_text
from skep.control.plans.subnets import Range, ranges
from skep.model.views.networks import (
    AddressView,
    NetworkDetail,
    NetworkView,
    SubnetView,
)
from skep.store.networks import AttachmentRow, NetworkRow
from skep.store.reservations import ReservationRow
from skep.store.virtual_ips import NamedVirtualIpRow


def network_view(row: NetworkRow, owner: str, ports: int) -> NetworkView:
    return NetworkView(
        id=row.id,
        name=row.name,
        owner=owner,
        subnet=row.subnet,
        gateway=row.gateway,
        internal=row.internal,
        ports=ports,
        created=rfc3339(row.created),
        subnets=[str(one.cidr) for one in ranges(row)],
    )


def address_view(row: AttachmentRow, owner: str, caller: Caller) -> AddressView:
    own = row.tenant_id == caller.tenant
    return AddressView(
        address=str(IPv4Address(row.address)),
        names=row.full_names,
        tenant=row.guest or owner,
        replica=row.replica if own else "",
        host=row.host if own else "",
        address6=six_text(row.address6),
    )


def service_view(row: NamedVirtualIpRow, owner: str) -> AddressView:
    return AddressView(
        address=str(IPv4Address(row.address)),
        names=(f"{row.service}.{scope(row.app, row.guest)}",),
        tenant=row.guest or owner,
    )


def with_counts(
    detail: NetworkDetail,
    row: NetworkRow,
    taken: Sequence[AttachmentRow | NamedVirtualIpRow],
    kept: Sequence[ReservationRow],
) -> NetworkDetail:
    used = {one.address for one in taken} | {
        one.address6 for one in taken if isinstance(one, AttachmentRow) and one.address6 is not None
    }
    blocked = [Reserved.of(one) for one in kept]
    subnets = [_fill(one, used, blocked) for one in ranges(row)]
    return msgspec.structs.replace(
        detail,
        subnets=subnets,
        used=len(taken),
        reserved=sum(one.reserved or 0 for one in subnets if ":" not in one.subnet),
        free=sum(one.free or 0 for one in subnets if ":" not in one.subnet),
        reservations=[reservation_view(one) for one in kept],
    )


def _fill(one: Range, used: set[int], kept: Sequence[Reserved]) -> SubnetView:
    """A subnet with how full it is."""
    here = sum(address in one for address in used)
    reserved = count_reserved(one, used, kept)
    return SubnetView(
        subnet=str(one.cidr),
        gateway=str(one.gateway),
        used=here,
        reserved=reserved,
        free=one.room - here - reserved,
    )

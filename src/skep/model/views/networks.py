"""Networks: their subnets, ports and shares, and the ways between replicas."""

import msgspec

from skep.model.views.base import View


class NetworkView(View, frozen=True, kw_only=True):
    """`owner` is a tenant: another one's network is shared, and `name` is what it is called here."""

    id: str
    name: str
    owner: str
    subnet: str
    gateway: str
    internal: bool
    ports: int
    created: str
    subnets: list[str] = msgspec.field(default_factory=list)
    """All of them, the first too."""


class PortView(View, frozen=True, kw_only=True):
    id: str
    network: str
    replica: str
    address: str
    mac: str
    address6: str = ""
    """Of IPv6, where the network has it."""


class ReservationView(View, frozen=True, kw_only=True):
    """`addresses` is one, or a range with both its ends: `10.1.0.10-10.1.0.19`."""

    addresses: str
    purpose: str
    created: str


class EgressView(View, frozen=True, kw_only=True):
    """An address by which a network leaves to the outside.

    `tenant`: whose networks may have it; "": anybody's.  `network` has it, and `host` leads its traffic
    outside; "" where none does.
    """

    address: str
    zone: str
    tenant: str = ""
    network: str = ""
    host: str = ""
    created: str


class ShareView(View, frozen=True, kw_only=True):
    """A network of `owner` that `tenant` may plug into once it has `accepted`.

    `network` is what it is called here: by its owner, or by who accepted it (till then `OWNER/NETWORK`).
    """

    network: str
    owner: str
    tenant: str
    accepted: bool
    created: str


class AddressView(View, frozen=True, kw_only=True):
    """Who has an address of a network.  Of another tenant's replica, no more than where it is talked to."""

    address: str
    names: tuple[str, ...]
    tenant: str
    replica: str = ""
    host: str = ""
    address6: str = ""


class SubnetView(View, frozen=True, kw_only=True):
    """A range of a network's addresses; how full it is is for the owner only."""

    subnet: str
    gateway: str
    used: int | None = None
    reserved: int | None = None
    free: int | None = None


class NetworkDetail(View, frozen=True, kw_only=True):
    """What there is to know of a network; counts and reservations are for its owner only."""

    name: str
    owner: str
    subnet: str
    gateway: str
    internal: bool
    created: str
    ports: list[AddressView]
    subnets: list[SubnetView] = msgspec.field(default_factory=list)
    """All of them, in the order in which they are filled."""
    used: int | None = None
    reserved: int | None = None
    free: int | None = None
    reservations: list[ReservationView] = msgspec.field(default_factory=list)
    shares: list[ShareView] = msgspec.field(default_factory=list)
    egress: EgressView | None = None


class PlaceView(View, frozen=True, kw_only=True):
    """A port and where it is.  `host_state` as hosts are listed; `up`: its names resolve.

    `egress`: the address by which it leaves to the outside, with the host that leads it there.
    Or the address of a service, `app/service`, which is on every host; `leads_to`: who gets new connections.
    """

    network: str
    address: str
    replica: str
    host: str
    host_state: str
    up: bool
    address6: str = ""
    egress: str = ""
    leads_to: tuple[str, ...] = ()


class HopView(View, frozen=True, kw_only=True):
    """Something a packet passes, or what stops it there."""

    at: str
    what: str
    passes: bool


class TraceView(View, frozen=True, kw_only=True):
    """Whether a replica reaches another, as far as skep can tell: what the target listens on it cannot."""

    source: str
    target: str
    reachable: bool
    hops: list[HopView]

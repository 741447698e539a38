"""Who is where in HAProxy: backends, the servers in them, and the map that leads requests to backends.  Pure.

Backends cannot be made while HAProxy runs, so there is a pool of equal ones, the *slots*.  An endpoint that
has somebody in common with before keeps its slot, and its servers change; one that is answered by others from
now on gets a fresh slot, and the map switches to it: of all that changes so, in one transaction.
"""

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from skep.model.edge import EdgeEndpoint, EdgeServer
from skep.model.ids import EndpointId, TenantId

FIRST_SLOTS = 64
TIMEOUT = 60.0
"""Seconds that every endpoint has that says nothing else."""


class Server(msgspec.Struct, frozen=True):
    """`up`: gets requests, if its weight is above 0; otherwise it only ends what it has."""

    name: str
    address: str
    port: int
    weight: int
    up: bool = True
    most: int | None = None
    """Requests at a time."""


class Route(msgspec.Struct, frozen=True):
    """What the map says of a host name with path."""

    slot: str
    endpoint: EndpointId
    flags: str = ""
    """A letter for everything that is not as usual: sticky, TLS only, a certificate that is awaited, a rate,
    a timeout of its own, that requests wait."""
    rate: int | None = None
    timeout: int | None = None
    """Milliseconds."""
    most: int | None = None
    """Not for the map to use: so that it is known of the servers, which do not say it."""
    holder: str = ""
    """The tenant, where requests may have to wait: their number is limited by tenant."""

    @property
    def text(self) -> str:
        numbers = ("" if one is None else str(one) for one in (self.rate, self.timeout, self.most))
        return "|".join((self.slot, self.endpoint, self.flags, *numbers, self.holder))

    @classmethod
    def parse(cls, text: str) -> "Route":
        parts = f"{text}|".split("|")  # a skep that was here before wrote no holder
        slot, endpoint, flags, *numbers, holder = parts[:7]
        rate, timeout, most = (int(one) if one else None for one in numbers)
        return cls(slot, EndpointId(endpoint), flags, rate, timeout, most, holder)


Slots = dict[str, dict[str, Server]]
Routes = dict[str, Route]


class Layout(msgspec.Struct, frozen=True):
    """What HAProxy has, or should have."""

    slots: Slots = msgspec.field(default_factory=dict)
    routes: Routes = msgspec.field(default_factory=dict)


class Wanted(msgspec.Struct, frozen=True):
    """An endpoint with those of its servers that can be reached."""

    endpoint: EdgeEndpoint
    servers: tuple[Server, ...]
    tenant: TenantId

    @property
    def key(self) -> str:
        return key(self.endpoint.host, self.endpoint.path)

    def route(self, slot: str) -> Route:
        one = self.endpoint
        timeout = None if one.timeout in (None, TIMEOUT) else int(one.timeout * 1000)
        asleep = one.hold and not any(server.weight for server in self.servers)
        wishes = {"h": asleep, "s": one.sticky, "w": one.awaited, "t": one.tls == "required"}
        wishes |= {"r": bool(one.rate), "o": bool(timeout)}
        flags = "".join(letter for letter, wish in wishes.items() if wish)
        holder = self.tenant if one.hold else ""
        return Route(slot, one.id, flags, one.rate, timeout, one.max_connections, holder)


class NoSlot(Exception):
    """There are fewer slots than it takes."""


def key(host: str, path: str) -> str:
    """With a slash at the end, as what is looked up has: `/api` leads to `/api/x`, not to `/apix`."""
    return f"{host}{path.rstrip('/')}/"


def server_name(endpoint: EndpointId, server: EdgeServer) -> str:
    """The same on every host, so that who is sent back by a cookie finds the same replica on any."""
    place = f"{server.network} {server.address} {server.port} {server.replica}"
    mark = hashlib.sha256(place.encode()).hexdigest()[:8]
    return f"{server.revision}-{endpoint}-{server.replica}-{mark}"


class Named(msgspec.Struct, frozen=True):
    """What the name of a server says."""

    revision: int
    endpoint: EndpointId
    replica: str


def parse_name(name: str) -> Named | None:
    """None: none of ours."""
    revision, _, rest = name.partition("-")
    endpoint, _, rest = rest.partition("-")
    replica, _, mark = rest.rpartition("-")
    if not revision.isdecimal() or not endpoint or not mark:
        return None
    return Named(int(revision), EndpointId(endpoint), replica)


def slot_names(count: int) -> list[str]:
    return [f"b{number}" for number in range(1, count + 1)]


def arrange(have: Layout, wanted: Iterable[Wanted]) -> Layout:
    """What should be there: what was kept where it can be, and who is no more wanted without new requests.

    A slot that stays as it is stays the same object.

    Raises NoSlot.
    """
    slots: Slots = dict(have.slots)
    routes: Routes = {}
    taken = {route.slot for route in have.routes.values()}
    free = (name for name, servers in have.slots.items() if not servers and name not in taken)
    for one in wanted:
        before = have.routes.get(one.key)
        stays = before is not None and before.endpoint == one.endpoint.id
        slot = before.slot if before and stays and _goes_on(have.slots[before.slot], one.servers) else None
        if slot is None:
            slot = next(free, None)
        if slot is None:
            raise NoSlot
        routes[one.key] = one.route(slot)
        after = _resting(slots[slot]) | {server.name: server for server in one.servers}
        if after != slots[slot]:
            slots[slot] = after
    return Layout(slots, routes)


def _goes_on(before: Mapping[str, Server], after: Iterable[Server]) -> bool:
    """Whether somebody goes on answering, or nobody answers before or after."""
    then = {server.name for server in before.values() if server.up and server.weight}
    now = {server.name for server in after if server.weight}
    return not then or not now or bool(then & now)


def _resting(servers: Mapping[str, Server]) -> dict[str, Server]:
    return {name: msgspec.structs.replace(one, up=False) for name, one in servers.items()}


def left_behind(have: Layout) -> list[str]:
    """Slots that nothing leads to any more, with servers in them."""
    led_to = {route.slot for route in have.routes.values()}
    return [name for name, servers in have.slots.items() if servers and name not in led_to]


def fresh(wanted: Iterable[Wanted], at_least: int = FIRST_SLOTS) -> Layout:
    """The layout for a HAProxy that is about to start: with slots for twice as many, for what changes."""
    chosen, count = list(wanted), max(at_least, FIRST_SLOTS)
    while count < 2 * len(chosen):
        count *= 2
    return arrange(Layout({name: {} for name in slot_names(count)}), chosen)

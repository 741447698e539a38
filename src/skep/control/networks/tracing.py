"""Why a replica can or cannot reach another: each hop and rule, from rows and what hosts know.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

import msgspec

from skep.control.telling.peers import NOBODY, NetworkMap
from skep.model.errors import NotFound
from skep.model.groups import Direction, Flow, GroupRule, admits, restricts
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId
from skep.model.views.networks import HopView, PlaceView, TraceView
from skep.store.egress import EgressRow
from skep.store.hosts import HostRow
from skep.store.networks import AttachmentRow, NetworkRow

Told = Mapping[HostName, Mapping[NetworkId, PeersInForce] | None]
"""What each host knows of the others; None: it does not answer."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What security groups are asked: whether they admit the protocol and port, or, without, anything."""

    protocol: str = ""
    port: int = 0
    groups: Mapping[str, tuple[GroupRule, ...]] = {}
    """Rules of the tenant's groups, by name."""
    members: Mapping[tuple[NetworkId, int], tuple[str, ...]] = {}
    """The groups of an address on a network."""
    untold: frozenset[HostName] = frozenset()
    """Hosts that do not know the newest rules."""

    @property
    def what(self) -> str:
        return f"{self.protocol} {self.port or ''}".strip() or "anything"


class End(msgspec.Struct, frozen=True):
    """A replica with its ports, and its host."""

    name: str
    host: HostRow
    ports: dict[NetworkId, AttachmentRow]

    @property
    def runs(self) -> bool:
        return any(port.runs for port in self.ports.values())


def end(rows: Iterable[AttachmentRow], places: Mapping[HostName, HostRow], name: str) -> End:
    """Raises NotFound: no replica of this name is on any network."""
    ports = {row.network_id: row for row in rows if row.replica == name}
    if not ports:
        raise NotFound(f"No replica {name!r} is on a network; name it as 'skep ps' does: app/service-0.")
    return End(name, places[next(iter(ports.values())).host], ports)


def trace(
    source: End,
    target: End,
    known: Mapping[NetworkId, NetworkRow],
    maps: Mapping[NetworkId, NetworkMap],
    told: Told,
    asked: Asked = Asked(),  # noqa: B008 - frozen
) -> TraceView:
    """Every hop up to the first that stops a packet."""
    return _traced(source.name, target.name, _hops(source, target, known, maps, told, asked))


def outside(target: str) -> IPv4Address | None:
    """The address, if the target is one and not a replica."""
    try:
        return IPv4Address(target)
    except ValueError:
        return None


def way_out(one: End) -> NetworkId:
    """The network that the replica's default route leads into."""
    return min(one.ports.values(), key=lambda port: port.position).network_id


def leaving(
    source: End,
    target: IPv4Address,
    known: Mapping[NetworkId, NetworkRow],
    maps: Mapping[NetworkId, NetworkMap],
    places: Mapping[HostName, HostRow],
    led: Mapping[NetworkId, EgressRow],
    told: Told,
    asked: Asked = Asked(),  # noqa: B008 - frozen
) -> TraceView:
    """How a replica leaves to an address outside: every hop up to the first that stops a packet."""
    network = known[way_out(source)]
    hops = _out(source, target, network, maps[network.id], places, led.get(network.id), told, asked)
    return _traced(source.name, str(target), hops)


def _traced(source: str, target: str, every: Iterable[HopView]) -> TraceView:
    hops = []
    for hop in every:
        hops.append(hop)
        if not hop.passes:
            break
    return TraceView(source=source, target=target, reachable=all(hop.passes for hop in hops), hops=hops)


def _out(
    source: End,
    target: IPv4Address,
    network: NetworkRow,
    known: NetworkMap,
    places: Mapping[HostName, HostRow],
    led: EgressRow | None,
    told: Told,
    asked: Asked,
) -> Iterator[HopView]:
    yield _running(source)
    yield _sender(source, source.ports[network.id], network)
    yield from _guarded(source, target, network.id, "egress", asked)
    if network.internal:
        yield _hop(source.host, f"{network.name!r} is internal: nothing leaves it", passes=False)
    if led is None:
        yield _hop(source.host, f"leaves to {target} by {source.host.name}, under its own address")
        return
    address, leader = IPv4Address(led.address), places.get(led.host) if led.host else None
    if leader is None:
        where = f"no host of zone {led.zone} can lead it outside"
        yield HopView(at="networks", what=f"{network.name!r} leaves by {address}, and {where}", passes=False)
        return
    if leader.name != source.host.name:
        yield _knows(source.host, network, known, told, f"{leader.name} leads {network.name!r} outside")
        yield _vxlan(source.host, leader, network)
    yield _knows(leader, network, known, told, f"it leads {network.name!r} outside")
    yield _hop(leader, f"leaves to {target} as {address}")


def _hops(
    source: End,
    target: End,
    known: Mapping[NetworkId, NetworkRow],
    maps: Mapping[NetworkId, NetworkMap],
    told: Told,
    asked: Asked,
) -> Iterator[HopView]:
    yield _running(source)
    shared = sorted(source.ports.keys() & target.ports.keys(), key=lambda one: known[one].name)
    if not shared:
        yield _apart(source, target, known)
        return
    network = known[shared[0]]
    yield _sender(source, source.ports[network.id], network)
    yield from _guarded(source, target.ports[network.id], network.id, "egress", asked)
    if source.host.name == target.host.name:
        yield _hop(source.host, f"the bridge of {network.name!r} hands it on; it stays on the host")
    else:
        yield from _across(source, target, network, maps[network.id], told)
    yield from _guarded(target, source.ports[network.id], network.id, "ingress", asked)
    yield _running(target)


def _guarded(
    one: End, other: AttachmentRow | IPv4Address, network: NetworkId, direction: Direction, asked: Asked
) -> Iterator[HopView]:
    """What the groups of one end say to the other port, or address outside; nothing where it is in none."""
    address = other.address if isinstance(other, AttachmentRow) else int(other)
    names = asked.members.get((network, one.ports[network].address), ())
    if not names:
        return
    if one.host.name in asked.untold:
        yield _hop(one.host, "not yet told the newest security groups; within seconds it is", passes=False)
        return
    groups = {name: asked.groups.get(name, ()) for name in names}
    listed = f"group{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"
    if not restricts([rule for rules in groups.values() for rule in rules], direction):
        yield _hop(one.host, f"{one.name} is in {listed}, without a rule for {direction}: all may go out")
        return
    flow = Flow(
        direction=direction,
        remote=IPv4Address(address),
        protocol=asked.protocol,
        port=asked.port,
        remote_groups=frozenset(asked.members.get((network, address), ())),
    )
    if isinstance(other, AttachmentRow):
        yield from _sixth(one, flow, other, groups)
    towards = f"{asked.what} {'from' if direction == 'ingress' else 'to'} {flow.remote}"
    if found := admits(groups, flow):
        yield _hop(one.host, f"group {found[0]} admits {towards} by its rule {found[1].id}: {found[1]}")
    else:
        yield _hop(one.host, f"no rule of {listed} admits {towards}", passes=False)


def _sixth(
    one: End, flow: Flow, port: AttachmentRow, groups: Mapping[str, tuple[GroupRule, ...]]
) -> Iterator[HopView]:
    """Where the rules say another thing of the other end's IPv6 address."""
    if port.address6 is None:
        return
    beside = msgspec.structs.replace(flow, remote=IPv6Address(port.address6))
    if bool(admits(groups, flow)) != bool(verdict := admits(groups, beside)):
        word = "admits" if verdict else "refuses"
        yield _hop(one.host, f"over IPv6 it {word} {beside.remote}, other than over IPv4")


def six_text(address: int | None) -> str:
    """An IPv6 address as people write it; nothing where there is none."""
    return "" if address is None else str(IPv6Address(address))


def _running(one: End) -> HopView:
    if not one.host.answers:
        return _hop(one.host, f"{one.host.name} does not answer: what it runs is unknown", passes=False)
    state = "runs" if one.runs else "does not run; see 'skep ps'"
    return _hop(one.host, f"{one.name} {state}", passes=one.runs)


def _apart(source: End, target: End, known: Mapping[NetworkId, NetworkRow]) -> HopView:
    theirs, others = (
        ", ".join(sorted(known[network].name for network in one.ports)) for one in (source, target)
    )
    return HopView(
        at="networks",
        what=f"{source.name} is on {theirs}, {target.name} on {others}: they share none",
        passes=False,
    )


def _sender(source: End, port: AttachmentRow, network: NetworkRow) -> HopView:
    rule = "the only ones that may send through its port"
    known = ", ".join(filter(None, (str(IPv4Address(port.address)), six_text(port.address6), port.mac)))
    return _hop(source.host, f"out on {network.name!r} as {known}: {rule}")


def _across(
    source: End, target: End, network: NetworkRow, known: NetworkMap, told: Told
) -> Iterator[HopView]:
    """From host to host: both must have an address there, and must have been told of each other."""
    for one in (source, target):
        if not one.host.underlay:
            yield _hop(one.host, f"{one.host.name} has no address on the network between hosts", passes=False)
    yield _informed(source, target, network, known, told)
    yield _vxlan(source.host, target.host, network)
    yield _informed(target, source, network, known, told)


def _informed(one: End, other: End, network: NetworkRow, known: NetworkMap, told: Told) -> HopView:
    """Whether the host has been told the newest of the network, and so of the other end."""
    there = other.ports[network.id]
    address = " and ".join(filter(None, (str(IPv4Address(there.address)), six_text(there.address6))))
    verb = "are" if there.address6 is not None else "is"
    what = f"{address} {verb} on {other.host.name}, and lets pass what comes from there"
    return _knows(one.host, network, known, told, what)


def _vxlan(one: HostRow, other: HostRow, network: NetworkRow) -> HopView:
    what = f"VXLAN number {network.number}, from {one.name} to {other.name}"
    return HopView(at="overlay", what=what, passes=True)


def _knows(host: HostRow, network: NetworkRow, known: NetworkMap, told: Told, what: str) -> HopView:
    answer = told.get(host.name)
    if answer is None:
        return _hop(host, f"{host.name} did not say what it knows", passes=False)
    digest = answer[network.id].digest if network.id in answer else NOBODY
    if digest != known.digest_from(host.name):
        return _hop(host, f"not yet told the newest of {network.name!r}; within seconds it is", passes=False)
    return _hop(host, f"knows that {what}")


def _hop(host: HostRow, what: str, *, passes: bool = True) -> HopView:
    return HopView(at=host.name, what=what, passes=passes)


def ordered(rows: Iterable[AttachmentRow], names: Mapping[NetworkId, str]) -> list[AttachmentRow]:
    return sorted(rows, key=lambda row: (names[row.network_id], row.host, row.app, row.service, row.ordinal))


def place(row: AttachmentRow, network: str, host: HostRow, led: EgressRow | None = None) -> PlaceView:
    return PlaceView(
        network=network,
        address=str(IPv4Address(row.address)),
        address6=six_text(row.address6),
        replica=row.replica,
        host=host.name,
        host_state=host.shown,
        up=host.answers and row.runs,
        egress=f"{IPv4Address(led.address)}{f' by {led.host}' if led.host else ''}" if led else "",
    )

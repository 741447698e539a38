"""Why a replica can or cannot reach another: each hop and rule, from rows and what hosts know.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address

import msgspec

from skep.control.peers import NOBODY, NetworkMap
from skep.model.errors import NotFound
from skep.model.host import PeersInForce
from skep.model.ids import HostName, NetworkId
from skep.model.views import HopView, PlaceView, TraceView
from skep.store.hosts import HostRow
from skep.store.networks import AttachmentRow, NetworkRow

Told = Mapping[HostName, Mapping[NetworkId, PeersInForce] | None]
"""What each host knows of the others; None: it does not answer."""


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
) -> TraceView:
    """Every hop up to the first that stops a packet."""
    hops = []
    for hop in _hops(source, target, known, maps, told):
        hops.append(hop)
        if not hop.passes:
            break
    return TraceView(
        source=source.name, target=target.name, reachable=all(hop.passes for hop in hops), hops=hops
    )


def _hops(
    source: End,
    target: End,
    known: Mapping[NetworkId, NetworkRow],
    maps: Mapping[NetworkId, NetworkMap],
    told: Told,
) -> Iterator[HopView]:
    yield _running(source)
    shared = sorted(source.ports.keys() & target.ports.keys(), key=lambda one: known[one].name)
    if not shared:
        yield _apart(source, target, known)
        return
    network = known[shared[0]]
    yield _sender(source, source.ports[network.id], network)
    if source.host.name == target.host.name:
        yield _hop(source.host, f"the bridge of {network.name!r} hands it on; it stays on the host")
    else:
        yield from _across(source, target, network, maps[network.id], told)
    yield _running(target)


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
    return _hop(source.host, f"out on {network.name!r} as {IPv4Address(port.address)}, {port.mac}: {rule}")


def _across(
    source: End, target: End, network: NetworkRow, known: NetworkMap, told: Told
) -> Iterator[HopView]:
    """From host to host: both must have an address there, and must have been told of each other."""
    for one in (source, target):
        if not one.host.underlay:
            yield _hop(one.host, f"{one.host.name} has no address on the network between hosts", passes=False)
    yield _informed(source, target, network, known, told)
    yield HopView(
        at="overlay",
        what=f"VXLAN number {network.number}, from {source.host.name} to {target.host.name}",
        passes=True,
    )
    yield _informed(target, source, network, known, told)


def _informed(one: End, other: End, network: NetworkRow, known: NetworkMap, told: Told) -> HopView:
    """Whether the host has been told the newest of the network, and so of the other end."""
    host, address = one.host, IPv4Address(other.ports[network.id].address)
    answer = told.get(host.name)
    if answer is None:
        return _hop(host, f"{host.name} did not say what it knows", passes=False)
    digest = answer[network.id].digest if network.id in answer else NOBODY
    if digest != known.digest_from(host.name):
        return _hop(host, f"not yet told the newest of {network.name!r}; within seconds it is", passes=False)
    return _hop(host, f"knows that {address} is on {other.host.name}, and lets pass what comes from there")


def _hop(host: HostRow, what: str, *, passes: bool = True) -> HopView:
    return HopView(at=host.name, what=what, passes=passes)


def ordered(rows: Iterable[AttachmentRow], names: Mapping[NetworkId, str]) -> list[AttachmentRow]:
    return sorted(rows, key=lambda row: (names[row.network_id], row.host, row.app, row.service, row.ordinal))


def place(row: AttachmentRow, network: str, host: HostRow) -> PlaceView:
    return PlaceView(
        network=network,
        address=str(IPv4Address(row.address)),
        replica=row.replica,
        host=host.name,
        host_state=host.shown,
        up=host.answers and row.runs,
    )

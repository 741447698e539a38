"""The services of a tenant: the names of its apps, virtual IPs, published ports, and what endpoints lead to.

Pure.  Addresses of control's are not used inside the cluster: they say which replica is meant.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from skep.model.edge import EdgeEndpoint
from skep.model.host import Publication, ServicePublications, VirtualIp
from skep.model.ids import ReplicaId, ServiceId
from skep.providers.kubernetes.manifests import app_service, is_label
from skep.providers.kubernetes.network.leading import Door, Place, Service
from skep.providers.kubernetes.network.records import NetworkRecord, TenantRecord
from skep.providers.kubernetes.network.standing import Standing, Standings, answering, serving

NAMES, VIRTUAL_IPS, PUBLISHED, ENDPOINTS = "names", "virtual-ips", "published", "endpoints"
"""The parts (`skep.dev/part`)."""

HTTP = 80
"""The port of a service that an endpoint leads to."""


def virtual_ip_name(service: ServiceId) -> str:
    return f"virtual-ip-{service}"


def endpoint_name(endpoint: EdgeEndpoint, revision: int | None = None) -> str:
    """Of the service behind an endpoint, or of what of it one revision serves."""
    return f"endpoint-{endpoint.id}" + ("" if revision is None else f"-{revision}")


def names(
    tenant: TenantRecord,
    known: Standings,
    hidden: Collection[ReplicaId] = (),
    virtual: Mapping[ServiceId, str] | None = None,
) -> list[Service]:
    """A headless service per app: below it replicas have their names, and services theirs.

    A service with a virtual IP (`virtual`) has that; one without has the addresses of its replicas.
    """
    shown = _shown(tenant, known, hidden)
    places: dict[str, set[Place]] = {}
    for network in tenant.networks.values():
        for port in network.ports.values():
            places.setdefault(port.app, set())
        for app, name, address in (*_led(network, shown, virtual or {}), *_plugged(network, shown)):
            found = places.setdefault(app, set())
            if is_label(name):
                found.add(Place(address, name))
    return [
        Service(
            app_service(app), NAMES, {"app": app_service(app)}, places=tuple(sorted(found)), headless=True
        )
        for app, found in sorted(places.items())
    ]


def _shown(tenant: TenantRecord, known: Standings, hidden: Collection[ReplicaId]) -> Standings:
    """The tenant's own; `known` are everybody's."""
    own = {port.replica for network in tenant.networks.values() for port in network.ports.values()}
    return {one: known[one] for one in own if one in known and one not in hidden}


def virtual_ips(tenant: TenantRecord, known: Standings) -> list[Service]:
    """One per service that says by which ports it is reached: Kubernetes has no virtual IP without.

    On however many networks it is: pods have one address for all of them.
    """
    doors: dict[ServiceId, set[Door]] = {}
    places: dict[ServiceId, set[str]] = {}
    for network in tenant.networks.values():
        for one in _virtual(network):
            doors.setdefault(one.service, set()).update(Door(port, port, how) for port, how in one.ports)
            places.setdefault(one.service, set()).update(
                there.address for there in behind(network, one, known)
            )
    return [
        _virtual_ip(service, tuple(sorted(found)), places[service])
        for service, found in sorted(doors.items())
        if found
    ]


def published(tenant: TenantRecord, known: Standings) -> list[Service]:
    return [
        _published(tenant, told, known) for _, told in sorted(tenant.published.items()) if told.publications
    ]


def backends(tenant: TenantRecord, known: Standings, *, by_revision: bool = False) -> list[Service]:
    """What endpoints lead to: whoever has a weight, of each endpoint, or of each of its revisions."""
    return [
        _backend(endpoint, revision, tenant, known)
        for told in tenant.endpoints.values()
        for endpoint in told.endpoints
        for revision in (sorted({one.revision for one in endpoint.servers}) if by_revision else [None])
    ]


def shares(endpoint: EdgeEndpoint, tenant: TenantRecord, known: Standings) -> dict[int, int]:
    """How much of the requests each revision gets: those of its replicas count that serve now.

    If none of the endpoint does, all: who leads requests says then that nobody answers.
    """
    at = {key: network.at() for key, network in tenant.networks.items()}
    whose = {one: at.get(one.network, {}).get(one.address) for one in endpoint.servers}
    there = {replica for one, replica in whose.items() if one.weight and replica in known}
    well = {replica for replica in there if replica is not None and known[replica].ready}
    found = dict.fromkeys((one.revision for one in endpoint.servers), 0)
    for one, replica in whose.items():
        if replica in (well or there) or not there:
            found[one.revision] += one.weight
    return found


def behind(network: NetworkRecord, one: VirtualIp, known: Standings) -> list[Standing]:
    """Who gets connections, by weight."""
    at = network.at()
    weights = {at[found.address]: found.weight for found in one.backends if found.address in at}
    return [known[replica] for replica in serving(weights, known)]


def _backend(endpoint: EdgeEndpoint, revision: int | None, tenant: TenantRecord, known: Standings) -> Service:
    weights: dict[ReplicaId, int] = {}
    ports: dict[ReplicaId, int] = {}
    at = {key: network.at() for key, network in tenant.networks.items()}
    for one in endpoint.servers:
        replica = at.get(one.network, {}).get(one.address)
        if replica is not None and revision in (None, one.revision):
            weights[replica], ports[replica] = one.weight, one.port
    places = [
        Place(known[replica].address, doors=(Door(HTTP, ports[replica]),))
        for replica in serving(weights, known)
    ]
    return Service(
        endpoint_name(endpoint, revision),
        ENDPOINTS,
        {"endpoint": endpoint.id},
        places=tuple(places),
        doors=(Door(HTTP, HTTP),),
    )


def _virtual_ip(service: ServiceId, doors: tuple[Door, ...], addresses: Iterable[str]) -> Service:
    places = tuple(Place(one, doors=doors) for one in sorted(addresses))
    labels = {"service": service}
    return Service(virtual_ip_name(service), VIRTUAL_IPS, labels, places=places, doors=doors)


def _published(tenant: TenantRecord, told: ServicePublications, known: Standings) -> Service:
    doors = {one: _door(one) for one in told.publications}
    places = [
        Place(there.address, doors=(doors[one],))
        for one in told.publications
        for there in answering(tenant.networks[one.network].replicas(one.addresses), known)
    ]
    return Service(
        f"published-{told.service}",
        PUBLISHED,
        {"service": told.service},
        places=tuple(places),
        doors=tuple(sorted(set(doors.values()))),
        kind="NodePort",
    )


def _door(one: Publication) -> Door:
    return Door(one.published, one.target, one.protocol, node=one.published)


def _plugged(network: NetworkRecord, known: Standings) -> Iterator[tuple[str, str, str]]:
    """App, name and address of everything that is plugged in, but for names that lead to a virtual IP."""
    led = {(one.app, name) for one in _virtual(network) for name in one.names}
    shared: dict[tuple[str, str], list[ReplicaId]] = {}
    for port in network.ports.values():
        own, *others = port.names or ("",)
        if own and port.replica in known:
            yield port.app, own, known[port.replica].address
        for name in others:
            if (port.app, name) not in led:
                shared.setdefault((port.app, name), []).append(port.replica)
    for (app, name), replicas in shared.items():
        for there in answering(replicas, known):
            yield app, name, there.address


def _led(
    network: NetworkRecord, known: Standings, virtual: Mapping[ServiceId, str]
) -> Iterator[tuple[str, str, str]]:
    for one in _virtual(network):
        own = [virtual[one.service]] if one.service in virtual else []
        for address in own or [there.address for there in behind(network, one, known)]:
            for name in one.names:
                yield one.app, name, address


def _virtual(network: NetworkRecord) -> tuple[VirtualIp, ...]:
    return network.virtual_ips.virtual_ips if network.virtual_ips else ()

"""Which endpoints an app has, and whom a name belongs to.  Pure.

A name belongs to the tenant that has it first, with all its paths; one path of it to one app.  What a release
gives up stays its app's until the release is finished.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address

import msgspec

from skep.control.telling.serving import serving
from skep.model.edge import AppEndpoints, EdgeEndpoint, EdgeServer
from skep.model.endpoints import ACME, certificate_name, meet
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import AppId, EndpointId, HostName, ReplicaId, ServiceId, TenantId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, EndpointSpec, ServiceSpec
from skep.store.endpoints import EndpointRow, PlaceRow
from skep.store.replicas import ReplicaRow

MOST_ENDPOINTS = 64
"""Of one service."""


def complete(service: ServiceSpec, spec: EndpointSpec) -> EndpointSpec:
    """With the port of the container.  Raises InvalidInput: which one is not clear."""
    if spec.port is not None:
        return spec
    exposed = {int(text.partition("/")[0]) for text in service.expose if _is_tcp(text)}
    candidates = exposed | {port.target for port in service.ports if port.protocol == "tcp"}
    if len(candidates) != 1:
        raise InvalidInput(
            f"endpoint {spec.host}{spec.path}: which port of the container? Write `port`, or let the service "
            "expose a single one"
        )
    return msgspec.structs.replace(spec, port=candidates.pop())


def _is_tcp(text: str) -> bool:
    number, _, protocol = text.partition("/")
    return number.isdecimal() and protocol in ("", "tcp")


def wanted(spec: AppSpec) -> Iterator[tuple[ServiceName, EndpointSpec]]:
    """Raises InvalidInput."""
    for name, service in spec.services.items():
        for one in service.x_skep.endpoints:
            yield name, complete(service, one)


def problems(spec: AppSpec) -> Iterator[str]:
    """What is wrong with them, in words."""
    seen: dict[tuple[str, str], str] = {}
    for name, service in spec.services.items():
        if len(service.x_skep.endpoints) > MOST_ENDPOINTS:
            yield f"service {name}: more than {MOST_ENDPOINTS} endpoints"
        for one in service.x_skep.endpoints:
            try:
                complete(service, one)
            except InvalidInput as error:
                yield f"service {name}: {error.message}"
            other = seen.setdefault((one.host, one.path), name)
            if other != name:
                yield f"services {other} and {name} both have the endpoint {one.host}{one.path}"


def claim(
    spec: AppSpec,
    services: Mapping[ServiceName, ServiceId],
    rows: Iterable[EndpointRow],
    *,
    app: AppId,
    tenant: TenantId,
    now: float,
    new_id: Callable[[], str],
) -> list[EndpointRow]:
    """Rows for endpoints that are new.  `rows` are those of everybody.

    Raises:
        Conflict: a name is another tenant's, or one with its path another app's.
    """
    known = list(rows)
    own = {(row.host, row.path) for row in known if row.app_id == app}
    found = []
    for name, one in wanted(spec):
        if (one.host, one.path) in own:
            continue
        for row in known:
            _must_be_free(one, row, tenant)
        found.append(
            EndpointRow(
                id=EndpointId(new_id()),
                tenant_id=tenant,
                app_id=app,
                service_id=services[name],
                host=one.host,
                path=one.path,
                spec=one,
                wakes=_wakes(spec.services[name]),
                created=now,
            )
        )
    return found


def must_be_free(spec: AppSpec, rows: Iterable[EndpointRow], *, app: AppId, tenant: TenantId) -> None:
    """An early answer.  Raises Conflict."""
    others = [row for row in rows if row.app_id != app]
    for _, one in wanted(spec):
        for row in others:
            _must_be_free(one, row, tenant)


def _must_be_free(one: EndpointSpec, row: EndpointRow, tenant: TenantId) -> None:
    if row.tenant_id != tenant and meet(one.host, row.host):
        raise Conflict(f"The name {one.host!r} belongs to another tenant: take another one.")
    if (row.host, row.path) == (one.host, one.path):
        raise Conflict(f"The endpoint {one.host}{one.path} belongs to another app of this tenant.")


def must_have_certificates(spec: AppSpec, held: Collection[str]) -> None:
    """Those that were ordered have dots in their names, and go with the endpoints they were ordered for.

    Raises NotFound: an endpoint names a certificate that the tenant does not have.
    """
    for name, service in spec.services.items():
        for one in service.x_skep.endpoints:
            if one.tls and one.tls != ACME and (one.tls not in held or "." in one.tls):
                raise NotFound(
                    f"services.{name}.x-skep.endpoints: there is no certificate {one.tls[:80]!r}; add it "
                    f"with 'skep cert add {one.tls[:80]} --certificate FILE --key FILE'."
                )


def settle(
    spec: AppSpec, services: Mapping[ServiceName, ServiceId], rows: Iterable[EndpointRow]
) -> tuple[list[EndpointRow], list[EndpointId]]:
    """Rows of the app to change, and those to delete, so that they are as the spec has them."""
    found = {(one.host, one.path): (name, one) for name, one in wanted(spec)}
    changed, gone = [], []
    for row in rows:
        if (row.host, row.path) not in found:
            gone.append(row.id)
            continue
        name, one = found[row.host, row.path]
        wakes = _wakes(spec.services[name])
        fresh = msgspec.structs.replace(row, service_id=services[name], spec=one, wakes=wakes)
        if fresh != row:
            changed.append(fresh)
    return changed, gone


def _wakes(service: ServiceSpec) -> bool:
    return service.x_skep.scale is not None and service.x_skep.scale.min == 0


def configured(
    app: AppId,
    tenant: TenantId,
    generation: int,
    rows: Iterable[EndpointRow],
    members: Iterable[ReplicaRow],
    places: Mapping[ReplicaId, PlaceRow],
    digests: Mapping[str, str],
    proofs: Mapping[str, str],
    clusters: Collection[HostName] = (),
) -> AppEndpoints:
    """What hosts are told.  `digests` are those of the tenant's certificates, by name; `proofs` are what
    authorities are to find under its host names."""
    by_service: dict[ServiceId, list[ReplicaRow]] = {}
    for member in members:
        by_service.setdefault(member.service_id, []).append(member)
    return AppEndpoints(
        app=app,
        tenant=tenant,
        generation=generation,
        endpoints=tuple(
            _endpoint(row, by_service.get(row.service_id, []), places, digests, proofs, clusters)
            for row in rows
        ),
    )


def _endpoint(
    row: EndpointRow,
    members: Collection[ReplicaRow],
    places: Mapping[ReplicaId, PlaceRow],
    digests: Mapping[str, str],
    proofs: Mapping[str, str],
    clusters: Collection[HostName],
) -> EdgeEndpoint:
    """Requests wait for a service that may be asleep, but not for one that somebody has stopped."""
    spec = row.spec
    certificate = digests.get(certificate_name(spec) or "", "")
    awaited = spec.tls == ACME and not certificate
    return EdgeEndpoint(
        id=row.id,
        host=row.host,
        path=row.path,
        servers=tuple(
            EdgeServer(
                replica=member.name,
                revision=places[member.id].revision,
                network=places[member.id].network_id,
                address=IPv4Address(places[member.id].address),
                port=spec.port or 80,
                weight=member.weight,
            )
            for member in serving(members, clusters)
            if member.id in places
        ),
        tls="required" if spec.tls and spec.redirect and not awaited else "optional",
        certificate=certificate,
        awaited=awaited,
        hold=row.wakes and all(member.desired == "running" for member in members),
        proof=proofs.get(row.host, ""),
        sticky=spec.sticky,
        max_connections=spec.max_connections,
        rate=spec.rate,
        timeout=spec.timeout,
    )

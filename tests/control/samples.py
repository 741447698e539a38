"""Facts, plans and applying one to the other, without a database."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
from hypothesis import assume

from skep.control.naming import fingerprint
from skep.control.plans.planning import make_plan
from skep.control.plans.plans import Facts, Plan
from skep.flow import Database
from skep.model.errors import Conflict
from skep.model.ids import (
    AppId,
    Bytes,
    ClusterId,
    DiskId,
    HostName,
    NetworkId,
    PortId,
    ReplicaId,
    ServiceId,
    TenantId,
    ZoneName,
    new_id,
)
from skep.model.images import ImageInfo
from skep.model.names import AppName, ServiceName
from skep.model.spec import AppSpec
from skep.providers.simulated.images import image
from skep.store import clusters
from skep.store.clusters import ClusterRow
from skep.store.disks import DiskRow
from skep.store.networks import NetworkRow, PortRow, PublishedRow
from skep.store.replicas import ContainerRow, ReplicaRow, ServiceRow

TENANT = TenantId("tenant")
HOST = HostName("host-1")
DEFAULT_DISK = Bytes(1024**2)
BUSYBOX = image("b" * 64, 1024)


def ids(prefix: str = "id") -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"{prefix}-{next(numbers)}"


def nothing(images: Mapping[str, ImageInfo] | None = None) -> Facts:
    """The facts before there is an app."""
    return Facts(
        app=AppId("app"),
        version=0,
        revision=0,
        current=None,
        services=(),
        replicas=(),
        containers={},
        ports=(),
        networks={},
        default_network=NetworkId("default-network"),
        disks={},
        images=images or {},
        published=(),
    )


def known(facts: Facts, spec: AppSpec, info: ImageInfo = BUSYBOX) -> Facts:
    """The same, with every image of the spec here."""
    return msgspec.structs.replace(facts, images={str(name): info for name in spec.services})


def plan(
    facts: Facts, spec: AppSpec, *, force: bool = False, new_id: Callable[[], str] | None = None
) -> Plan:
    return make_plan(
        facts,
        spec,
        new_id=new_id or ids(),
        placing=Everywhere(),
        default_disk=DEFAULT_DISK,
        force_recreate=force,
    )


class Everywhere(dict[tuple[ServiceName, int], HostName]):
    """One host for all."""

    def __missing__(self, _position: tuple[ServiceName, int]) -> HostName:
        return HOST


async def stand_on_cluster(database: Database, zone: str, host: HostName, **more: Any) -> None:
    """The zone does from now on: this host of it stands for the cluster."""
    row = ClusterRow(
        id=ClusterId(new_id()),
        zone=ZoneName(zone),
        host=host,
        server="https://k8s",
        sealed_kubeconfig=b"",
        registry="registry.example.com/skep",
        created=0.0,
        **more,
    )
    await database.write(partial(clusters.insert, row=row))


def named(name: str) -> ServiceName:
    return ServiceName(name)


def carried_out(facts: Facts, made: Plan, spec: AppSpec, info: ImageInfo = BUSYBOX) -> Facts:
    """The facts once the plan has been carried out: what `release.claim` and `release.finish` write."""
    gone = {change.replica for change in made.replicas if change.action == "remove"}
    changed = {change.replica: change for change in made.replicas if change.action in ("create", "update")}
    started = {change.replica for change in made.replicas if change.action == "start"}
    rows = {row.id: row for row in facts.replicas if row.id not in gone}
    containers = dict(facts.containers)
    for replica, change in changed.items():
        containers[change.container] = ContainerRow(
            id=change.container,
            tenant_id=TENANT,
            replica_id=replica,
            release_id=made.release,
            system_disk=change.system_disk or DiskId("none"),
            fingerprint=fingerprint(spec, change.service, info.digest),
            created=0.0,
        )
        rows[replica] = ReplicaRow(
            id=replica,
            tenant_id=TENANT,
            app_id=facts.app,
            service_id=made.services[change.service],
            service=change.service,
            ordinal=change.ordinal,
            host=change.host,
            container_id=change.container,
            desired="running",
            created=0.0,
        )
    for replica in started:
        rows[replica] = msgspec.structs.replace(rows[replica], desired="running")
    return msgspec.structs.replace(
        known(facts, spec, info),
        version=facts.version + 1,
        revision=made.revision,
        current=spec,
        services=tuple(_services(facts, made)),
        replicas=tuple(rows.values()),
        containers={row.container_id: containers[row.container_id] for row in rows.values()},
        ports=tuple(_ports(facts, made, gone)),
        networks=dict(facts.networks)
        | {
            net.name: msgspec.structs.replace(
                _network(net.id, net.name), app_id=facts.app if net.own else None, internal=net.internal
            )
            for net in made.networks
        },
        disks=dict(facts.disks)
        | {disk.name: disk_row(disk.name, disk.id, host=disk.host) for disk in made.disks},
        published=tuple(_published(made, spec)),
    )


def disk_row(name: str, disk: str, app: AppId | None = None, host: HostName = HOST) -> DiskRow:
    return DiskRow(
        id=DiskId(disk),
        tenant_id=TENANT,
        app_id=app,
        name=name,
        kind="data",
        size=DEFAULT_DISK,
        host=host,
        created=0.0,
    )


def network_row(name: str, subnet: str = "10.1.0.0/24") -> NetworkRow:
    return msgspec.structs.replace(_network(NetworkId(f"net-{name}"), name), subnet=subnet)


def app_name(name: str = "shop") -> AppName:
    return AppName(name)


def _network(network: NetworkId, name: str) -> NetworkRow:
    return NetworkRow(
        id=network,
        tenant_id=TENANT,
        app_id=None,
        name=name,
        subnet="10.1.0.0/24",
        gateway="10.1.0.1",
        number=1,
        cursor=0,
        internal=False,
        created=0.0,
    )


def _services(facts: Facts, made: Plan) -> list[ServiceRow]:
    kept = [row for row in facts.services if row.id not in made.removed_services]
    return kept + [
        ServiceRow(id=ServiceId(made.services[name]), tenant_id=TENANT, app_id=facts.app, name=name)
        for name in made.new_services
    ]


def _ports(facts: Facts, made: Plan, gone: set[ReplicaId]) -> list[PortRow]:
    updated = {change.replica for change in made.replicas if change.action == "update"}
    wanted = [(change, port) for change in made.replicas for port in change.ports]
    return [port for port in facts.ports if port.replica_id not in gone | updated] + [
        PortRow(
            id=PortId(port.id),
            tenant_id=TENANT,
            network_id=port.network,
            replica_id=change.replica,
            address=number,
            mac=port.mac or "02:00:00:00:00:01",
            names=port.names,
            position=port.position,
        )
        for number, (change, port) in enumerate(wanted)
    ]


def _published(made: Plan, spec: AppSpec) -> list[PublishedRow]:
    return [
        PublishedRow(
            id=f"{name}-{port.target}",
            tenant_id=TENANT,
            service_id=made.services[name],
            host_ip=port.host_ip,
            protocol=port.protocol,
            published=port.published or 49152,
            target=port.target,
        )
        for name, wanted in spec.services.items()
        for port in wanted.ports
    ]


@contextmanager
def replicas_that_can_stay() -> Iterator[None]:
    """For generated apps: those whose first networks change are refused, which is another test's."""
    try:
        yield
    except Conflict as refusal:
        assume("first networks" not in refusal.message)
        raise

"""What the parts of an app are called among the tenant's, and what makes two containers alike.  Pure.

Plans, quotas, specifications and the steps of a release must agree on it.
"""

import hashlib

import msgspec

from skep.model.ids import NetworkId, TenantId, derived_id
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, Mount, NetworkAttachment, Placement, ServiceSpec, UpdateConfig

DEFAULT_NETWORK = "default"


def default_network(tenant: TenantId) -> NetworkId:
    """The id of the network that all apps of the tenant share, whoever makes it first."""
    return NetworkId(derived_id(f"default network of {tenant}"))


def disk_name(app: str, service: str, ordinal: int, mount: Mount, spec: AppSpec) -> str:
    """The tenant's name of the disk behind a volume mount: shared by the replicas, or one for each."""
    service_spec = spec.services[ServiceName(service)]
    if not mount.source:
        return f"{app}_{service}-{ordinal}_{hashlib.sha256(mount.target.encode()).hexdigest()[:8]}"
    volume = spec.volumes.get(mount.source)
    if volume is not None and volume.external:
        return volume.external
    base = f"{app}_{mount.source}"
    return f"{base}_{service}-{ordinal}" if service_spec.x_skep.stateful else base


def network_name(app: str, network: str, spec: AppSpec) -> str:
    """The tenant's name of one of the app's networks."""
    declared = spec.networks.get(network)
    if declared is not None and declared.external:
        return declared.external
    plain = declared is None or not (
        declared.subnet or declared.subnets or declared.enable_ipv6 or declared.internal
    )
    if network == DEFAULT_NETWORK and plain:
        return DEFAULT_NETWORK
    return f"{app}_{network}"


def scope(app: str, guest: str) -> str:
    """What follows the names of an app's replicas on a network: `guest` is its tenant, if not the owner.

    Names of apps have no dots: so `web.shop` is of the owner's app, `web.shop.acme` of the app of acme.
    """
    return f"{app}.{guest}" if guest else app


def attachments(service: ServiceSpec) -> list[tuple[str, NetworkAttachment]]:
    """The service's networks, the one with the default route first (highest priority, then as written)."""
    if not service.networks:
        return [(DEFAULT_NETWORK, NetworkAttachment())]
    return sorted(service.networks.items(), key=lambda item: -item[1].priority)


def fingerprint(spec: AppSpec, service: ServiceName, digest: str) -> str:
    """Equal for containers that would be made alike.  What needs no new container is left out."""
    wanted = spec.services[service]
    anywhere = msgspec.structs.replace(
        wanted.x_skep, zones=(), pack=False, security_groups=(), endpoints=(), scale=None
    )
    essence = (
        msgspec.structs.replace(
            wanted,
            image=digest,
            replicas=1,
            ports=(),
            depends_on={},
            placement=Placement(),
            update=UpdateConfig(),
            rollback=UpdateConfig(),
            endpoint_mode="vip",
            x_skep=anywhere,
        ),
        sorted((mount.source, spec.configs[mount.source].digest) for mount in wanted.configs),
        sorted((mount.source, spec.secrets[mount.source].digest) for mount in wanted.secrets),
        [network_name(spec.name, name, spec) for name, _ in attachments(wanted)],
    )
    return hashlib.sha256(msgspec.json.encode(essence, order="sorted")).hexdigest()

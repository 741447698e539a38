"""What a service may ask for that not every kind of zone has.  Pure.

Zones say which needs they lack; a plan refuses, by name, what cannot be had where the service is to run.
"""

import math
import re
from collections.abc import Callable, Iterator
from enum import StrEnum

from skep.model.spec import AppSpec, EndpointSpec, NetworkAttachment, ReleasePolicy, ServiceSpec


class Need(StrEnum):
    HOST_PATHS = "host-paths"
    VOLUMES = "volumes"
    SHARED_VOLUMES = "shared-volumes"
    KEPT_ROOT = "kept-root"
    ADDRESSES = "addresses"
    MACS = "macs"
    PORTS = "ports"
    ENDPOINTS = "endpoints"
    EDGE = "edge"
    CAPABILITIES = "capabilities"
    SYSCTLS = "sysctls"
    ULIMITS = "ulimits"
    PIDS = "pids"
    NAMED_USERS = "named-users"
    SHARES = "shares"
    MAX_PER_NODE = "max-per-node"
    INIT = "init"
    TMPFS_MODES = "tmpfs-modes"
    VARIABLES = "variables"
    SNAPSHOTS = "snapshots"
    """Nothing asks for it by name: where it is not to be had, that is said."""


BASELINE = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
"""Capabilities that every zone gives: those of Kubernetes' level `baseline`.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline
"""
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_syncookies",
    }
)
"""Those of the same level."""


VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
"""Names of environment variables that every zone gives: those of Kubernetes before 1.30."""
MEMORY_MODES = frozenset({None, 0o777, 0o1777})
"""Of directories in memory (tmpfs); Kubernetes makes no others."""
_USUAL = EndpointSpec(host="")
NODE_PORTS = range(30_000, 32_768)
"""Those that the nodes of a cluster offer, unless its operator says otherwise.

https://kubernetes.io/docs/concepts/services-networking/service/#type-nodeport
"""
_NEAR = 5.0
"""Percentage points by which a share may be larger than was asked for."""
_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - every address of a host


def needs_of(spec: AppSpec, service: ServiceSpec) -> dict[Need, str]:
    """What the service asks for, each in words that go on after `it`: `mounts the path /srv of a host`."""
    found: dict[Need, str] = {}
    for need, say in _SAYS.items():
        if words := next(say(spec, service), ""):
            found[need] = words
    return found


def _host_paths(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (f"mounts the path {one.source} of a host" for one in service.mounts if one.type == "bind")


def _volumes(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (f"has a volume at {one.target}" for one in service.mounts if one.type == "volume")


def _kept_root(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (say for say in ["keeps its system disk"] if service.x_skep.keep_system_disk)


def _addresses(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    for name, attachment in service.networks.items():
        for address in _fixed(attachment):
            yield (
                f"asks for the address {address} on network {name!r} (nothing there gives fixed ones: "
                "leave it out, and use names)"
            )


def _macs(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    for name, attachment in service.networks.items():
        if attachment.mac_address is not None:
            yield f"asks for the MAC {attachment.mac_address} on network {name!r}"


def _fixed(attachment: NetworkAttachment) -> Iterator[str]:
    given = (attachment.ipv4_address, attachment.ipv6_address)
    return (one for one in given if one is not None)


def _ports(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    for one in service.ports:
        if one.host_ip not in _ANYWHERE:
            yield f"publishes a port on {one.host_ip} alone"
        if one.published is not None and one.published not in NODE_PORTS:
            yield f"publishes port {one.published} ({NODE_PORTS[0]} to {NODE_PORTS[-1]} are possible)"


def _edge(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    for one in service.x_skep.endpoints:
        asked = {
            "sticky": one.sticky,
            "max_connections": one.max_connections,
            "rate": one.rate,
            "timeout": one.timeout != _USUAL.timeout,
            "tls: acme": one.tls == "acme",
        }
        yield from (f"has {name} at the endpoint {one.host}" for name, wanted in asked.items() if wanted)
    policy, usual = spec.x_skep.release, ReleasePolicy()
    limits = (policy.max_error_rate, policy.max_latency)
    if judges(spec, service) and limits != (usual.max_error_rate, usual.max_latency):
        yield "judges its canary by errors or latency"
    if service.x_skep.endpoints and service.x_skep.scale is not None:
        scale = service.x_skep.scale
        ways = {
            "by requests": scale.requests is not None,
            "by latency": scale.latency is not None,
            "to nothing": scale.min == 0,
        }
        yield from (f"scales {name}" for name, wanted in ways.items() if wanted)


def _shares(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    """Where connections are shared by whole replicas, a step of a canary is a number of these."""
    policy, count = spec.x_skep.release, service.replicas
    reached = service.expose or service.ports or service.x_skep.endpoints
    apart = any(one.type == "volume" for one in service.mounts)
    if policy.strategy != "canary" or not reached or apart or not count:
        return
    for percent in policy.steps:
        had = _whole(percent, count)
        if had > percent + _NEAR:
            words = (
                f"has a canary of {percent} % with {count} replica{'s' if count > 1 else ''}, of whole ones"
            )
            yield f"{words} it is {had:.0f} % (`x-skep: {{release: {{steps: [{math.ceil(had)}, …]}}}}`)"


def _max_per_node(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    """Kubernetes keeps replicas apart, or spreads them; it does not count them."""
    if (most := service.placement.max_per_host) is not None and most > 1:
        yield f"puts at most {most} replicas on a node (`max_replicas_per_node: 1` is possible)"


def _whole(percent: int, count: int) -> float:
    """The percentage that `percent` is, of as many old as new replicas."""
    new = max(1, round(count * min(1.0, percent / (100 - percent))))
    old = max(1, round(count * min(1.0, (100 - percent) / percent)))
    return 100 * new / (new + old)


def judges(spec: AppSpec, service: ServiceSpec) -> bool:
    """Whether a canary is judged by what is answered at the service's endpoints."""
    return spec.x_skep.release.strategy == "canary" and bool(service.x_skep.endpoints)


def _shared_volumes(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    """A disk of a cluster is at one node at a time, and replicas at several."""
    if service.x_skep.stateful:
        return
    several = service.replicas > 1 or (service.x_skep.scale is not None and service.x_skep.scale.max > 1)
    others = [one for one in spec.services.values() if one is not service]
    elsewhere = {one.source for other in others for one in other.mounts if one.type == "volume"}
    for mount in service.mounts:
        if mount.type == "volume" and mount.source and (several or mount.source in elsewhere):
            yield f"shares volume {mount.source!r} (`x-skep: {{stateful: true}}` gives each replica its own)"


def _endpoints(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (f"has the endpoint {one.host}{one.path}" for one in service.x_skep.endpoints)


def _capabilities(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    names = (one.upper().removeprefix("CAP_") for one in service.cap_add)
    return (f"adds the capability {one}" for one in names if one not in BASELINE)


def _sysctls(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (f"sets {one}" for one in service.sysctls if one not in SAFE_SYSCTLS)


def _ulimits(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (f"sets the ulimit {one}" for one in service.ulimits)


def _pids(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (say for say in ["limits its processes itself (`pids`)"] if service.resources.pids is not None)


def _named_users(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    names = [*(service.user or "").split(":"), *service.group_add]
    return (f"runs as {one!r}, not as a number" for one in names if one and not one.isdecimal())


def _init(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (say for say in ["has an init of skep's (`init: true`; use one of the image)"] if service.init)


def _tmpfs_modes(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    memory = (one for one in service.mounts if one.type == "tmpfs")
    return (
        f"sets the mode of {one.target} (tmpfs), which is 0777"
        for one in memory
        if one.mode not in MEMORY_MODES
    )


def _variables(spec: AppSpec, service: ServiceSpec) -> Iterator[str]:
    return (
        f"has an environment variable named {one!r}"
        for one in service.environment
        if not VARIABLE.fullmatch(one)
    )


_SAYS: dict[Need, Callable[[AppSpec, ServiceSpec], Iterator[str]]] = {
    Need.HOST_PATHS: _host_paths,
    Need.VOLUMES: _volumes,
    Need.SHARED_VOLUMES: _shared_volumes,
    Need.KEPT_ROOT: _kept_root,
    Need.ADDRESSES: _addresses,
    Need.MACS: _macs,
    Need.PORTS: _ports,
    Need.ENDPOINTS: _endpoints,
    Need.EDGE: _edge,
    Need.CAPABILITIES: _capabilities,
    Need.SYSCTLS: _sysctls,
    Need.ULIMITS: _ulimits,
    Need.PIDS: _pids,
    Need.NAMED_USERS: _named_users,
    Need.SHARES: _shares,
    Need.MAX_PER_NODE: _max_per_node,
    Need.INIT: _init,
    Need.TMPFS_MODES: _tmpfs_modes,
    Need.VARIABLES: _variables,
}

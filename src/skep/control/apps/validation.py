"""Whether an AppSpec makes sense and is allowed.  Any client may send one, so nothing is taken on trust.

Pure.  All problems are collected and named at once.
"""

import posixpath
import re
from collections.abc import Iterator

from skep.control.callers import Caller, Role
from skep.control.endpoints import endpoints
from skep.control.plans.publications import clash
from skep.model.errors import InvalidInput
from skep.model.names import ServiceName, check_name
from skep.model.placement import Priority, parse_constraint, parse_key
from skep.model.references import normalize
from skep.model.spec import AppSpec, PublishedPort, ServiceSpec

MOST_SERVICES = 200
MOST_REPLICAS = 1000
LARGEST_FILE = 512 * 1024
"""Bytes of one config or secret (Docker: 500 KB)."""
MOST_GROUPS = 16
LARGEST_DISK = 64 * 1024**4

CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
"""What a tenant may add: the common engines' default set, and one that concerns its own memory only.

ALL is all that the host has, so it is not among them; nor is SYS_NICE, which gives real-time priority: what
runs so has no limit of processor time, and others get none."""
_REAL_TIME = frozenset({"rtprio", "rttime"})

_SYSCTLS = re.compile(
    r"net\.[a-z0-9_./-]+|kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni)|fs\.mqueue\.\w+"
)
_ENGINES_OWN = re.compile(r"/(proc|sys)/|/dev/$|/$")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_SIGNAL = re.compile(r"(SIG)?[A-Z]+[0-9]*([+-][0-9]+)?|[0-9]{1,2}")


def check(spec: AppSpec, caller: Caller) -> None:
    """Raises InvalidInput with every problem found."""
    problems = list(_problems(spec, caller))
    if problems:
        raise InvalidInput("; ".join(problems[:20]), problems=problems)


def _problems(spec: AppSpec, caller: Caller) -> Iterator[str]:
    yield from _name(spec.name, "app")
    if not spec.services:
        yield "the app has no services"
    if len(spec.services) > MOST_SERVICES:
        yield f"{len(spec.services)} services; at most {MOST_SERVICES} are possible"
    replicas = sum(service.replicas for service in spec.services.values())
    if replicas > MOST_REPLICAS:
        yield f"{replicas} replicas in all; at most {MOST_REPLICAS} are possible in one app"
    for name in [*spec.networks, *spec.volumes]:
        yield from _name(name, "network or volume")
    for volume, wanted in spec.volumes.items():
        if wanted.size is not None and wanted.size > LARGEST_DISK:
            yield f"volume {volume}: {wanted.size} bytes is more than a disk may have ({LARGEST_DISK})"
    for kind, files in (("config", spec.configs), ("secret", spec.secrets)):
        for name, file in files.items():
            if file.content is not None and len(file.content) > LARGEST_FILE:
                yield f"{kind} {name}: larger than {LARGEST_FILE} bytes"
            if file.content is None and file.digest is None:
                yield f"{kind} {name}: has no content"
    for service_name, service in spec.services.items():
        yield from _name(service_name, "service")
        for problem in _service(service_name, service, spec, caller):
            yield f"service {service_name}: {problem}"
    cycle = _cycle(spec)
    if cycle:
        yield f"depends_on goes in a circle: {' -> '.join(cycle)}"
    yield from _double_publications(spec)
    yield from endpoints.problems(spec)


def _service(name: ServiceName, service: ServiceSpec, spec: AppSpec, caller: Caller) -> Iterator[str]:
    try:
        normalize(service.image)
    except InvalidInput as error:
        yield error.message
    yield from _references(service, spec)
    yield from _placement(service)
    yield from _scale(service)
    for group in service.x_skep.security_groups:
        yield from _name(group, "security group")
    if len(service.x_skep.security_groups) > MOST_GROUPS:
        yield f"more than {MOST_GROUPS} security groups"
    yield from _mounts(service, caller)
    for key, value in service.environment.items():
        if not key or "=" in key or "\0" in key + value:
            yield f"environment: {key[:80]!r} cannot be the name of a variable, or has a NUL byte"
    if any("\0" in argument for argument in (service.command or ()) + (service.entrypoint or ())):
        yield "a NUL byte in its command"
    forbidden = {_capability(text) for text in service.cap_add} - CAPABILITIES
    if forbidden and caller.role is not Role.ADMIN:
        yield f"cap_add: {', '.join(sorted(forbidden))} is for admins only"
    if service.x_skep.priority is Priority.HIGH and caller.role is not Role.ADMIN:
        yield "x-skep.priority: high is for admins only, since replicas of others give way to it"
    if (urgent := sorted(_REAL_TIME & set(service.ulimits))) and caller.role is not Role.ADMIN:
        yield f"ulimits: {', '.join(urgent)} is for admins only"
    for key in service.sysctls:
        if not _SYSCTLS.fullmatch(key):
            yield f"sysctls: {key!r} is not a namespaced one"
    if service.hostname is not None and not _HOSTNAME.fullmatch(service.hostname):
        yield f"hostname: {service.hostname[:80]!r} is not a host name"
    if service.stop_signal is not None and not _SIGNAL.fullmatch(service.stop_signal):
        yield f"stop_signal: {service.stop_signal[:40]!r} is not a signal"
    fixed = [network for network, place in service.networks.items() if place.is_fixed]
    scaled = service.x_skep.scale.max if service.x_skep.scale is not None else 1
    if fixed and max(service.replicas, scaled) > 1:
        yield f"networks.{fixed[0]}: a fixed address needs replicas: 1, since no two replicas can share it"
    if len(service.networks) > 8:
        yield "more than 8 networks"


def _scale(service: ServiceSpec) -> Iterator[str]:
    policy = service.x_skep.scale
    if policy is None:
        return
    if policy.min > policy.max or policy.max > MOST_REPLICAS:
        yield f"scale: from {policy.min} to {policy.max} replicas is impossible (at most {MOST_REPLICAS})"
    if policy.cpu is not None and service.resources.cpus is None:
        yield "scale.cpu is percent of a limit that there is not: set deploy.resources.limits.cpus"
    if service.x_skep.endpoints:
        return
    if policy.requests is not None or policy.latency is not None:
        yield "scale.requests and scale.latency are those of endpoints, and it has none: add x-skep.endpoints"
    if policy.min == 0:
        yield "scale.min 0: without an endpoint no request could start it again; add x-skep.endpoints"


def _placement(service: ServiceSpec) -> Iterator[str]:
    checks = [(parse_constraint, text) for text in service.placement.constraints]
    for parse, text in [*checks, *((parse_key, text) for text in service.placement.spread)]:
        try:
            parse(text)
        except InvalidInput as error:
            yield f"placement: {error.message}"


def _references(service: ServiceSpec, spec: AppSpec) -> Iterator[str]:
    for other in service.depends_on:
        if other not in spec.services:
            yield f"depends_on: there is no service {other!r}"
    for network in service.networks:
        if network not in spec.networks and network != "default":
            yield f"networks: there is no network {network!r} in this app"
    for mount in service.mounts:
        if mount.type == "volume" and mount.source and mount.source not in spec.volumes:
            yield f"volumes: there is no volume {mount.source!r} in this app"
    for file in service.configs:
        if file.source not in spec.configs:
            yield f"configs: there is no config {file.source!r}"
    for file in service.secrets:
        if file.source not in spec.secrets:
            yield f"secrets: there is no secret {file.source!r}"


def _mounts(service: ServiceSpec, caller: Caller) -> Iterator[str]:
    targets = [mount.target for mount in service.mounts]
    targets += [file.target for file in (*service.configs, *service.secrets)]
    for target in targets:
        clean = posixpath.normpath(target)
        if not target.startswith("/") or "\0" in target or clean != target.rstrip("/") or clean[:2] == "//":
            yield f"mount target {target[:200]!r} is not a clean absolute path"
        elif _ENGINES_OWN.match(f"{clean}/"):
            yield f"mount target {target[:200]!r}: /dev, /proc and /sys of a container are the engine's own"
    for target in sorted({target for target in targets if targets.count(target) > 1}):
        yield f"two mounts at {target}"
    for mount in service.mounts:
        if mount.type == "bind" and caller.role is not Role.ADMIN:
            yield f"bind mount {mount.source[:200]!r}: only admins may mount paths of the host; use a volume"
        if mount.type == "bind" and not mount.source.startswith("/"):
            yield f"bind mount {mount.source[:200]!r} is not an absolute path"


def _double_publications(spec: AppSpec) -> Iterator[str]:
    owners: dict[tuple[str, int], list[tuple[str, PublishedPort]]] = {}
    for name, service in spec.services.items():
        for port in service.ports:
            if port.published is None:
                continue
            others = owners.setdefault((port.protocol, port.published), [])
            for owner, other in others:
                if clash(port, port.published, other, other.published):
                    yield f"services {owner} and {name} both publish port {port.published}/{port.protocol}"
            others.append((name, port))


def _cycle(spec: AppSpec) -> list[str]:
    """A circle of depends_on, or nothing."""
    done: set[str] = set()

    def visit(name: ServiceName, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in spec.services:
            return []
        for other in spec.services[name].depends_on:
            found = visit(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in spec.services if (found := visit(name, []))), [])


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


def _name(name: str, what: str) -> Iterator[str]:
    try:
        check_name(name, what)
    except InvalidInput as error:
        yield error.message

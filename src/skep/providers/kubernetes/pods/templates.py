"""A container's specification as the template of a pod.  Pure: a plan may ask before anything is made.

What Kubernetes cannot do is refused by name; nothing is left out silently but what it does by itself (a limit
on processes is the node's, names are resolved by the cluster's own service).
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from skep.model.errors import InvalidInput
from skep.model.host import ContainerSpec
from skep.model.ids import Bytes, DiskId
from skep.model.needs import VARIABLE
from skep.model.placement import Priority
from skep.providers.kubernetes.manifests import network_marks
from skep.providers.kubernetes.pods import placing, probes, security, volumes
from skep.providers.kubernetes.pods.naming import CarrierKind, Position, is_hostname, kind_of

CONTAINER = "main"
"""The name of a pod's one container."""
Template = dict[str, Any]
_TERM = ("SIGTERM", "TERM", "15")
_REQUEST_CPU, _REQUEST_MEMORY = 0.01, 32 * 1024 * 1024
"""What is set aside for a container that reserves nothing: Compose's limits are no reservations."""
_STOP = "kill -s {signal} 1; while kill -0 1; do sleep 0.1; done"


@dataclass(frozen=True)
class Given:
    """What a template needs beside the specification."""

    image: str
    """As kubelet pulls it: `registry/name@sha256:…`."""
    image_user: str = ""
    secret: str = ""
    """The name before `-env` and `-files`: the Secrets with the environment and with files."""
    dns: Mapping[str, Any] = field(default_factory=dict)
    """Where names are looked up (`pod_dns`)."""
    system_size: Bytes | None = None
    claim: Callable[[DiskId], str] = str
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What else is to be read off the pod (`addresses`)."""
    node_labels: Collection[str] = ()
    """Those that any node has, by name."""
    priorities: Mapping[Priority, str] = field(default_factory=dict)
    """The names of their classes; a priority that has none is the cluster's usual one."""


def template(spec: ContainerSpec, given: Given) -> Template:
    """Of pods that are interchangeable, if a Deployment carries them: nothing in it is a replica's own.

    Raises:
        InvalidInput: the specification asks for what a cluster does not have, named.
    """
    _refuse(spec)
    mounted = volumes.of_spec(spec, given.image, given.claim, f"{given.secret}-files")
    pod: Template = {
        "containers": [_container(spec, given, mounted)],
        "restartPolicy": "Never" if kind_of(spec) is CarrierKind.POD else "Always",
        "terminationGracePeriodSeconds": grace(spec.stop_grace_period),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security.of_pod(spec),
    }
    pod |= _named(spec, given) | placing.placed(spec, given.node_labels)
    if name := given.priorities.get(spec.priority):
        pod["priorityClassName"] = name
    if mounted.volumes:
        pod["volumes"] = mounted.volumes
    if mounted.copies:
        pod["initContainers"] = mounted.copies
    return {"metadata": _metadata(spec, given), "spec": pod}


def grace(seconds: float) -> int:
    """Never zero, which would forget the pod before it has ended."""
    return max(1, math.ceil(seconds))


def environment(spec: ContainerSpec) -> dict[str, str]:
    """It is kept in a Secret: what is in it is nobody else's business.

    Raises:
        InvalidInput: a name that Kubernetes does not take for a variable's.
    """
    if wrong := [name for name in spec.environment if not VARIABLE.fullmatch(name)]:
        raise InvalidInput(f"{spec.name}: a cluster has no environment variable named {wrong[0]!r}.")
    return dict(spec.environment)


def _refuse(spec: ContainerSpec) -> None:
    environment(spec)
    if spec.init:
        raise InvalidInput(
            f"{spec.name}: a cluster has no init of its own (init: true); use one of the image."
        )
    if spec.ulimits:
        raise InvalidInput(f"{spec.name}: a cluster does not set the ulimit {min(spec.ulimits)!r}.")
    if not spec.args:
        raise InvalidInput(f"{spec.name}: there is no command to run.")


def _container(spec: ContainerSpec, given: Given, mounted: volumes.Volumes) -> Template:
    found: Template = {
        "name": CONTAINER,
        "image": given.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [_literal(word) for word in spec.args],
        "workingDir": spec.working_dir,
        "resources": resources(spec, given.system_size),
        "securityContext": security.of_container(spec, given.image_user),
        "terminationMessagePolicy": "File",
        **probes.of_check(spec.healthcheck),
    }
    if spec.environment:
        found["envFrom"] = [{"secretRef": {"name": f"{given.secret}-env"}}]
    if mounted.mounts:
        found["volumeMounts"] = mounted.mounts
    if spec.tty:
        found["tty"] = True
    if spec.tty or spec.stdin_open:
        found["stdin"] = True
    if spec.stop_signal.upper() not in _TERM:
        found["lifecycle"] = {"preStop": {"exec": {"command": _stop(spec)}}}
    return found


def resources(spec: ContainerSpec, system_size: Bytes | None) -> Template:
    limits, requests = {}, {}
    if spec.cpus is not None:
        limits["cpu"] = _cores(spec.cpus)
    requests["cpu"] = _cores(min(_REQUEST_CPU, spec.cpus or _REQUEST_CPU))
    if spec.memory is not None:
        limits["memory"] = str(spec.memory)
    reserved = spec.memory_reservation or min(_REQUEST_MEMORY, spec.memory or _REQUEST_MEMORY)
    requests["memory"] = str(min(reserved, spec.memory or reserved))
    if system_size is not None:
        limits["ephemeral-storage"], requests["ephemeral-storage"] = str(system_size), "0"
    return {"requests": requests} | ({"limits": limits} if limits else {})


def _cores(cpus: float) -> str:
    """In thousandths, the finest that there is."""
    return f"{max(1, round(cpus * 1000))}m"


def _stop(spec: ContainerSpec) -> list[str]:
    """What kubelet itself sends follows only if there is no shell, or at the end of the grace."""
    signal = spec.stop_signal.upper().removeprefix("SIG")
    return ["/bin/sh", "-c", _STOP.format(signal=signal)]


def _literal(word: str) -> str:
    """Kubernetes would replace `$(NAME)`."""
    return word.replace("$", "$$")


def _named(spec: ContainerSpec, given: Given) -> Template:
    found: Template = {}
    own = spec.hostname == Position.of(spec.name).replica
    kind = kind_of(spec)
    settable = kind is CarrierKind.POD or (kind is CarrierKind.DEPLOYMENT and not own)
    if settable and is_hostname(spec.hostname):
        found["hostname"] = spec.hostname
    found |= given.dns
    if aliases := _aliases(spec):
        found["hostAliases"] = aliases
    return found


def _aliases(spec: ContainerSpec) -> list[Template]:
    by_address: dict[str, list[str]] = {}
    for name, address in spec.extra_hosts.items():
        try:
            by_address.setdefault(str(ip_address(address)), []).append(name)
        except ValueError:
            raise InvalidInput(f"{spec.name}: {address!r} (extra_hosts: {name}) is no address.") from None
    return [{"ip": address, "hostnames": names} for address, names in by_address.items()]


def _metadata(spec: ContainerSpec, given: Given) -> Template:
    kept = {"skep.dev/labels": json.dumps(spec.labels, sort_keys=True)} if spec.labels else {}
    noted = {**kept, **given.annotations}
    return {"labels": network_marks(spec.networks)} | ({"annotations": noted} if noted else {})

"""One service of the canonical tree, read into its specification."""

import re
from typing import Any

import msgspec

from skep.compose.attachments import read_attachments
from skep.compose.autoscaling import read_scale
from skep.compose.builds import read_build
from skep.compose.cursor import Cursor
from skep.compose.dependencies import read_dependencies
from skep.compose.endpoints import read_endpoints
from skep.compose.environment import read_environment, read_hosts, read_labels, read_sysctls
from skep.compose.limits import read_replicas, read_resources, read_restart, read_ulimits
from skep.compose.placement import read_placement
from skep.compose.problems import closest
from skep.compose.process import (
    read_capabilities,
    read_command,
    read_health,
    read_hostname,
    read_signal,
    read_working_dir,
)
from skep.compose.project import Build, Service
from skep.compose.publications import read_publications
from skep.compose.rollouts import read_update
from skep.compose.storage import check_targets, read_files, read_mounts
from skep.compose.surroundings import Surroundings
from skep.model.errors import InvalidInput
from skep.model.names import check_name
from skep.model.placement import Priority
from skep.model.spec import Extensions, RestartPolicy, ServiceSpec


class Known(msgspec.Struct, frozen=True):
    """The names a service may refer to; `jobs` are services that others wait for to complete."""

    enabled: frozenset[str]
    disabled: frozenset[str]
    jobs: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]
    configs: frozenset[str]
    secrets: frozenset[str]


def read_service(name: str, service: Cursor, known: Known, around: Surroundings) -> Service:
    """The service; what is wrong with it is recorded as errors, with something harmless in its place."""
    _check_service_name(name, service)
    build = read_build(service.get("build"), around)
    spec = ServiceSpec(
        image=_read_image(service, build, f"{around.project}-{name}"),
        **_process(service, around),
        **_placement(name, service, known, around),
        **_storage(service, known),
    )
    check_targets(service, spec.mounts, (*spec.configs, *spec.secrets))
    return Service(
        name=name,
        position=service.position,
        spec=spec,
        build=build,
        profiles=service.get("profiles").texts(),
        pull_policy=_read_pull_policy(service.get("pull_policy")),
    )


def _process(service: Cursor, around: Surroundings) -> dict[str, Any]:
    return {
        "command": read_command(service.get("command")),
        "entrypoint": read_command(service.get("entrypoint")),
        "environment": read_environment(service, around),
        "working_dir": read_working_dir(service.get("working_dir")),
        "user": service.get("user").text() or None,
        "group_add": service.get("group_add").texts(),
        "hostname": read_hostname(service.get("hostname")),
        "labels": read_labels(service, around),
        "healthcheck": read_health(service.get("healthcheck")),
        "cap_add": read_capabilities(service.get("cap_add")),
        "cap_drop": read_capabilities(service.get("cap_drop")),
        "init": service.get("init").boolean(),
        "tty": service.get("tty").boolean(),
        "stdin_open": service.get("stdin_open").boolean(),
        "stop_signal": read_signal(service.get("stop_signal")),
        "stop_grace_period": _or(service.get("stop_grace_period").duration(), 10.0),
    }


def _placement(name: str, service: Cursor, known: Known, around: Surroundings) -> dict[str, Any]:
    return {
        "ports": read_publications(service.get("ports")),
        "expose": service.get("expose").texts(),
        "networks": read_attachments(service, known.networks),
        "depends_on": read_dependencies(service, known.enabled, known.disabled),
        "restart": read_restart(service) or _default_restart(name in known.jobs),
        "replicas": read_replicas(service),
        "resources": read_resources(service),
        "placement": read_placement(service.get("deploy").get("placement")),
        "update": read_update(service.get("deploy").get("update_config")),
        "rollback": read_update(service.get("deploy").get("rollback_config")),
        "endpoint_mode": _endpoint_mode(service.get("deploy").get("endpoint_mode")),
        "ulimits": read_ulimits(service.get("ulimits")),
        "sysctls": read_sysctls(service.get("sysctls")),
        "extra_hosts": read_hosts(service.get("extra_hosts")),
        "x_skep": _read_extensions(service, around.project),
    }


def _storage(service: Cursor, known: Known) -> dict[str, Any]:
    return {
        "mounts": read_mounts(service, known.volumes),
        "read_only": service.get("read_only").boolean(),
        "shm_size": service.get("shm_size").size() or None,
        "configs": read_files(service, "configs", known.configs),
        "secrets": read_files(service, "secrets", known.secrets),
    }


def _endpoint_mode(cursor: Cursor) -> str:
    mode = cursor.text() or "vip"
    if mode not in ("vip", "dnsrr"):
        cursor.error(f"{mode[:40]!r}: must be vip (its name leads to one address) or dnsrr (to its replicas)")
    return mode


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _default_restart(is_job: bool) -> RestartPolicy:
    """Services are kept running (Compose would not restart them), but a job that others wait for ends."""
    return RestartPolicy(condition="no") if is_job else RestartPolicy()


def _check_service_name(name: str, service: Cursor) -> None:
    try:
        check_name(name, "The service name")
    except InvalidInput as error:
        service.error(error.message)


_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d{1,5})?/)?"  # registry
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9]+:[a-f0-9]{32,128})?"
)
"""https://pkg.go.dev/github.com/distribution/reference"""


def _read_image(service: Cursor, build: Build | None, default: str) -> str:
    image = service.get("image")
    text = image.text()
    if text is None:
        if build is None:
            service.error("has neither image nor build")
        return default
    if len(text) > 512 or not _REFERENCE.fullmatch(text):
        image.error(f"{text[:100]!r} is no image reference: write it like registry.example.org/team/web:1.2")
    return text


_PULL_POLICY = re.compile(r"always|never|build|if_not_present|missing|daily|weekly|every_([0-9]+[wdhms])+")


def _read_pull_policy(cursor: Cursor) -> str:
    text = cursor.text() or "missing"
    if not _PULL_POLICY.fullmatch(text):
        cursor.error(f"{text[:40]!r}: must be always, missing, never, build, daily, weekly or every_12h")
    return "missing" if text == "if_not_present" else text


_SIZES = frozenset({"system_disk"})
_FIELDS = {field.name: field.type for field in msgspec.structs.fields(Extensions)}


def _read_extensions(service: Cursor, project: str) -> Extensions:
    """`x-skep`, and `storage_opt.size` for the engines' way to say the size of the system disk."""
    values: dict[str, Any] = {}
    if size := service.get("storage_opt").get("size").size(least=1):
        values["system_disk"] = size
    extensions = service.get("x-skep")
    if extensions.exists and not isinstance(extensions.node.value, dict):
        extensions.error("must be a mapping")
    for key, value in extensions.entries():
        if key not in _FIELDS:
            close = closest(key, _FIELDS)
            hint = f"did you mean {close}?" if close else f"known are {', '.join(_FIELDS)}"
            value.error(f"unknown key {key[:40]!r}; {hint}")
        elif key == "endpoints":
            values[key] = read_endpoints(value, project)
        elif key == "scale":
            values[key] = read_scale(value)
        elif key in _SIZES:
            values[key] = value.size(least=1)
        else:
            values[key] = _converted(value, _FIELDS[key])
    return Extensions(**values)


def _converted(cursor: Cursor, wanted: Any) -> Any:
    if wanted is bool:
        return cursor.boolean()
    value = cursor.node.plain()
    if wanted is Priority and value not in list(Priority):
        cursor.error(f"is one of {', '.join(Priority)}, not {str(value)[:80]!r}")
        return None
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError as error:
        cursor.error(str(error))
        return None

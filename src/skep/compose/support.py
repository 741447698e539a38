"""Which keys of Compose skep acts on, which it only warns about, and which it refuses.

Nothing is dropped in silence: a key of the schema is in this table, and a test compares the two.
`docs/reference/compose.md` holds what `table_as_markdown` makes of it.
"""

from enum import StrEnum

import msgspec

from skep.compose.cursor import Cursor


class Level(StrEnum):
    SUPPORTED = "supported"
    WARNED = "warned"
    """Read and named in a warning; the app runs without it."""
    REFUSED = "refused"
    """The app would not be what its author means."""


class Support(msgspec.Struct, frozen=True):
    """`harmless` values need neither warning nor refusal: they ask for what is so anyway."""

    level: Level
    note: str = ""
    harmless: tuple[object, ...] = ()


Keys = dict[str, Support]


def _yes(*keys: str, note: str = "") -> Keys:
    return dict.fromkeys(keys, Support(Level.SUPPORTED, note))


def _warn(note: str, *keys: str, harmless: tuple[object, ...] = ()) -> Keys:
    return dict.fromkeys(keys, Support(Level.WARNED, note, harmless))


def _no(note: str, *keys: str, harmless: tuple[object, ...] = ()) -> Keys:
    return dict.fromkeys(keys, Support(Level.REFUSED, note, harmless))


_OFF = (False, "false", None)
_LATER = "not acted on yet"
_NO_NEW_PRIVILEGES = (["no-new-privileges:true"], ["no-new-privileges"])

_UPDATE = _yes("delay", "max_failure_ratio", "monitor", "order", "parallelism") | _yes(
    "failure_action", note="`rollback` unless it says otherwise"
)

TABLE: dict[str, Keys] = {
    "": _yes("name", "include", "services", "networks", "volumes", "configs", "secrets")
    | _yes("x-skep", note="`release`: how a release comes into force; `zones`: the only ones services run in")
    | _warn("Compose files have no versions any more; remove it", "version")
    | _no("language models are not provided", "models"),
    "services.*": _yes(
        *("build", "cap_add", "cap_drop", "command", "configs", "cpus", "depends_on", "deploy"),
        *("entrypoint", "env_file", "environment", "expose", "extends", "extra_hosts", "group_add"),
        *("healthcheck", "hostname", "image", "init", "label_file", "labels", "mem_limit"),
        *("mem_reservation", "networks", "pids_limit", "ports", "profiles", "pull_policy", "read_only"),
        *("restart", "scale", "secrets", "shm_size", "stdin_open", "stop_grace_period", "stop_signal"),
        *("sysctls", "tmpfs", "tty", "ulimits", "user", "volumes", "working_dir", "x-skep"),
    )
    | _yes("links", note="an alias becomes a name in the networks both are in, and the order of start")
    | _yes("mac_address", note="of the first network")
    | _yes("storage_opt", note="`size` is the size of the system disk")
    | _yes("network_mode", note="`bridge` and `none` are warned about; others are refused")
    | _warn("containers are named app/service-N", "container_name")
    | _warn("`skep logs` shows every service", "attach")
    | _warn("skep runs no watcher", "develop")
    | _warn(_LATER, "annotations", "blkio_config", "cgroup_parent", "oom_score_adj", "pull_refresh_after")
    | _warn(_LATER, "oom_kill_disable", harmless=_OFF)
    | _warn("use cpus", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_shares", "cpuset")
    | _warn("use cpus", "cpu_rt_period", "cpu_rt_runtime")
    | _warn("memory is limited by mem_limit alone", "mem_swappiness", "memswap_limit")
    | _warn("the resolver of the network is used", "dns", "dns_opt", "dns_search")
    | _warn("names end in the app", "domainname")
    | _warn("logs are kept and rotated by skep", "logging")
    | _warn("skep chooses the runtime", "runtime", harmless=("runc", "crun"))
    | _warn("no other option can be set", "security_opt", harmless=_NO_NEW_PRIVILEGES)
    | _warn("skep decides on user namespaces", "userns_mode")
    | _no("containers get no more rights than the defaults and cap_add", "privileged", harmless=_OFF)
    | _no("devices of the host are not given out", "devices", "device_cgroup_rules", "gpus")
    | _no("namespaces are never shared with the host or others", "cgroup", harmless=("private",))
    | _no("namespaces are never shared with the host or others", "ipc", harmless=("private", "shareable"))
    | _no("namespaces are never shared with the host or others", "pid", harmless=(None, ""))
    | _no("namespaces are never shared with the host or others", "uts", harmless=("",))
    | _no("use a named volume in both services", "volumes_from")
    | _no("use names of the form service.app", "external_links")
    | _no("only linux/amd64 is run", "platform", harmless=("linux/amd64", "linux", "linux/x86_64"))
    | _no("lifecycle hooks are not run", "post_start", "pre_stop")
    | _no("only Linux containers are run", "credential_spec")
    | _no("only Linux containers are run", "isolation", harmless=("default",))
    | _no("providers are not run", "provider")
    | _no("language models are not provided", "models")
    | _no("the API of the engine is not given to containers", "use_api_socket", harmless=_OFF),
    "services.*.build": _yes(
        *("context", "dockerfile", "dockerfile_inline", "args", "target", "labels", "no_cache", "tags")
    )
    | _warn(_LATER, "cache_from", "cache_to", "extra_hosts", "shm_size", "ulimits", "provenance", "sbom")
    | _warn("builds run in a network of their own", "network", harmless=("default",))
    | _warn("base images are pulled when they are missing", "pull", harmless=_OFF)
    | _warn("images are built for linux/amd64", "platforms")
    | _warn("skep chooses how to isolate builds", "isolation", harmless=("default",))
    | _no("builds get no more rights than the defaults", "privileged", harmless=_OFF)
    | _no("builds get no more rights than the defaults", "entitlements")
    | _no("builds see nothing but their context", "additional_contexts", "secrets", "ssh"),
    "services.*.depends_on.*": _yes("condition", "required", "restart"),
    "services.*.deploy": _yes(
        *("endpoint_mode", "placement", "replicas", "resources", "restart_policy"),
        *("rollback_config", "update_config"),
    )
    | _warn(_LATER, "labels")
    | _warn(_LATER, "mode", harmless=("replicated",)),
    "services.*.deploy.placement": _yes(
        "constraints", note="on node.hostname, node.zone, node.region, node.pool, node.labels.NAME"
    )
    | _yes("preferences", "max_replicas_per_node"),
    "services.*.deploy.placement.preferences[]": _yes("spread"),
    "services.*.deploy.resources": _yes("limits", "reservations"),
    "services.*.deploy.resources.limits": _yes("cpus", "memory", "pids"),
    "services.*.deploy.resources.reservations": _yes("memory")
    | _warn(_LATER, "cpus")
    | _no("devices of the host are not given out", "devices", "generic_resources"),
    "services.*.deploy.restart_policy": _yes("condition", "delay", "max_attempts", "window"),
    "services.*.deploy.rollback_config": _UPDATE,
    "services.*.deploy.update_config": _UPDATE,
    "services.*.env_file[]": _yes("path", "required", "format"),
    "services.*.healthcheck": _yes(
        *("disable", "interval", "retries", "start_interval", "start_period", "test", "timeout")
    ),
    "services.*.networks.*": _yes("aliases", "ipv4_address", "ipv6_address", "mac_address", "priority")
    | _warn("addresses are those of the network's subnets", "link_local_ips")
    | _warn("interfaces are named eth0, eth1, …", "interface_name")
    | _warn("the network with the highest priority gives the way out", "gw_priority")
    | _warn(_LATER, "driver_opts"),
    "services.*.ports[]": _yes("host_ip", "name", "protocol", "published", "target")
    | _warn(_LATER, "app_protocol")
    | _warn("connections are spread over all replicas", "mode", harmless=("ingress", "host")),
    "services.*.volumes[]": _yes("type", "source", "target", "read_only", "bind", "volume", "tmpfs")
    | _warn("mounts are always consistent", "consistency")
    | _no("images are not mounted", "image"),
    "services.*.volumes[].bind": _yes("create_host_path")
    | _warn(_LATER, "propagation", "recursive", "selinux"),
    "services.*.volumes[].volume": _yes("nocopy")
    | _warn(_LATER, "labels")
    | _no("mount the whole volume", "subpath"),
    "services.*.volumes[].tmpfs": _yes("size", "mode"),
    "services.*.configs[]": _yes("source", "target", "uid", "gid", "mode"),
    "services.*.secrets[]": _yes("source", "target", "uid", "gid", "mode"),
    "services.*.ulimits.*": _yes("soft", "hard"),
    "networks.*": _yes("external", "internal", "ipam", "labels")
    | _yes("name", note="of an external network; others are named by their key")
    | _yes("driver", note="`bridge` and `overlay` are the same here; others are refused")
    | _warn(_LATER, "driver_opts")
    | _warn("every network is attachable", "attachable", harmless=(True, "true", *_OFF))
    | _yes("enable_ipv6", note="without an IPv6 subnet one is chosen")
    | _no("every network has IPv4", "enable_ipv4", harmless=(True, "true")),
    "networks.*.ipam": _yes("config")
    | _warn("skep allots the addresses", "driver", harmless=("default",))
    | _warn(_LATER, "options"),
    "networks.*.ipam.config[]": _yes("subnet", note="several are used one after the other")
    | _yes("gateway")
    | _warn(_LATER, "ip_range", "aux_addresses"),
    "volumes.*": _yes("external", "labels", "x-skep")
    | _yes("name", note="of an external volume; others are named by their key")
    | _yes("driver", note="only `local`; others are refused")
    | _yes("driver_opts", note="`size`; `device` is refused, others are warned about"),
    "configs.*": _yes("content", "environment", "file")
    | _warn("configs are named by their key", "name")
    | _warn(_LATER, "labels")
    | _no("write the content into the project", "external", harmless=_OFF)
    | _no("contents are used as they are", "template_driver"),
    "secrets.*": _yes("environment", "file")
    | _warn("secrets are named by their key", "name")
    | _warn(_LATER, "labels")
    | _no("write the content into the project", "external", harmless=_OFF)
    | _no("contents are used as they are", "template_driver")
    | _no("secrets are kept by skep", "driver", "driver_opts"),
}

_NAMED = frozenset(
    {
        "services",
        "networks",
        "volumes",
        "configs",
        "secrets",
        "services.*.networks",
        "services.*.depends_on",
        "services.*.ulimits",
    }
)
_PREFIXES = frozenset(
    key[:end] for key in TABLE for end in [len(key), *(at for at, mark in enumerate(key) if mark in ".[")]
)


def check_support(root: Cursor) -> None:
    """Warn of every key in the canonical tree that is not acted on; refuse what cannot be left out."""
    _check(root, "")


def _check(cursor: Cursor, place: str) -> None:
    if place not in _PREFIXES:
        return
    keys = TABLE.get(place, {})
    for key, child in cursor.entries():
        if key in keys:
            _judge(child, key, keys[key])
        elif key == "x-skep":
            child.warn("not acted on: x-skep belongs at the top, under a service or a volume")
        _check(child, _below(place, key))
    for item in cursor.items():
        _check(item, f"{place}[]")


def _below(place: str, key: str) -> str:
    if place in _NAMED:
        return f"{place}.*"
    return f"{place}.{key}" if place else key


def _judge(cursor: Cursor, key: str, support: Support) -> None:
    value = cursor.node.value
    if support.level is Level.SUPPORTED or value in support.harmless or value in ([], {}):
        return
    if support.level is Level.REFUSED:
        cursor.error(f"{key} is not supported: {support.note}")
    else:
        cursor.warn(support.note if support.note == _LATER else f"not acted on: {support.note}")


def table_as_markdown() -> str:
    """The body of the reference page: one table for each mapping of a Compose file."""
    lines: list[str] = []
    for place, keys in TABLE.items():
        lines += [f"## {f'`{place}`' if place else 'Top level'}", "", "| key | | note |", "|---|---|---|"]
        lines += [f"| `{key}` | {keys[key].level} | {_note(keys[key])} |" for key in sorted(keys)]
        lines.append("")
    return "\n".join(lines)


def _note(support: Support) -> str:
    shown = [_written(value) for value in support.harmless if value not in (None, "false", "true")]
    accepted = f"accepted: {', '.join(shown)}" if shown else ""
    return "; ".join(filter(None, [support.note, accepted]))


def _written(value: object) -> str:
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value or repr(value)}`"

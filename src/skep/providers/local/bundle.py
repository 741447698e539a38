"""The OCI bundle of a container: what runc and crun are told.  Pure.

Format: https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md.  The defaults (capabilities,
devices, masked and read-only paths, mounts) are those of the Docker engine, tightened by
no-new-privileges and a private cgroup namespace.
"""

import math
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import msgspec

from skep.model.errors import InvalidInput, Unsupported
from skep.model.host import ContainerSpec
from skep.model.placement import Priority
from skep.model.spec import Ulimit
from skep.providers.local.accounts import Identity
from skep.providers.local.seccomp import profile

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
INIT_TARGET = "/dev/init"
_OOM_SCORES = {Priority.HIGH: 10, Priority.NORMAL: 100, Priority.LOW: 600}
"""Above everything the host itself runs: a host out of memory gives up containers before their keepers."""
_CPU_SHARES = {Priority.HIGH: 4096, Priority.LOW: 256}
"""Of processors that all want; what says nothing has 1024."""
_CPU_PERIOD = 100_000
_UNLIMITED = 2**64 - 1
_DEFAULT_NOFILE = Ulimit(soft=1024, hard=524_288)
"""As systemd and Docker 25: select(2) breaks above 1024, and programs that need more raise it themselves."""

_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
"""null, zero, full, random, urandom, tty, console, ptmx, pts/*."""
_LIMIT_NAMES = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
_SYSCTLS = re.compile(
    r"net\.[\w./-]+|fs\.mqueue\.\w+|kernel\.(msg(max|mnb|mni)|sem|shm(all|max|mni|_rmid_forced))"
)
_DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


class HostLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What this host can give: a config that asks for more does not start."""

    capabilities: frozenset[str]
    """With CAP_ prefix: the bounding set of this process."""
    hard_limits: dict[str, int]
    """Hard rlimits by lower-case name (`nofile`); -1 is unlimited."""
    machine: str
    swap_accounting: bool = True
    oom_score_adj: int = 0

    @property
    def may_raise_limits(self) -> bool:
        return "CAP_SYS_RESOURCE" in self.capabilities


class BundleMount(msgspec.Struct, frozen=True, kw_only=True):
    """One mount of the container, in the words of the OCI config."""

    destination: str
    source: str
    type: str = "bind"
    options: tuple[str, ...] = ()


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one start of a container that its specification does not say."""

    spec: ContainerSpec
    rootfs: Path
    cgroup: str
    identity: Identity
    mounts: tuple[BundleMount, ...]
    netns: Path | None
    """None: a network namespace of its own with nothing but loopback."""
    init: Path | None = None
    """A static init program of the host, for `init: true`."""


def config(bundle: Bundle, host: HostLimits) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        InvalidInput: a name in the specification means nothing (capability, ulimit, sysctl).
    """
    spec, capabilities = bundle.spec, capability_set(bundle.spec, host)
    return {
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": str(bundle.rootfs), "readonly": spec.read_only},
        "process": process(bundle, host, capabilities),
        "mounts": [_mount(each) for each in _in_order(bundle)],
        "linux": {
            "cgroupsPath": bundle.cgroup,
            "namespaces": _namespaces(bundle.netns),
            "resources": _resources(spec, host),
            "sysctl": _sysctls(spec),
            "seccomp": profile(capabilities, host.machine),
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def process(bundle: Bundle, host: HostLimits, capabilities: Set[str]) -> dict[str, Any]:
    """The `process` section; an exec starts from the same one."""
    spec, identity = bundle.spec, bundle.identity
    args = [INIT_TARGET, "--", *spec.args] if bundle.init else list(spec.args)
    return {
        "terminal": spec.tty,
        "args": args,
        "env": [f"{name}={value}" for name, value in environment(spec, identity.home).items()],
        "cwd": spec.working_dir or "/",
        "user": user_section(identity),
        "capabilities": capability_section(capabilities, identity.uid),
        "rlimits": rlimits(spec.ulimits, host),
        "noNewPrivileges": True,
        "oomScoreAdj": max(_OOM_SCORES[spec.priority], host.oom_score_adj),
    }


def user_section(identity: Identity) -> dict[str, Any]:
    return {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}


def environment(spec: ContainerSpec, home: str) -> dict[str, str]:
    """The specification's own on top of what every engine sets."""
    terminal = {"TERM": "xterm"} if spec.tty else {}
    return {"PATH": DEFAULT_PATH, "HOSTNAME": spec.hostname, "HOME": home} | terminal | spec.environment


def capability_section(capabilities: Set[str], uid: int) -> dict[str, list[str]]:
    """Only root starts with its capabilities in force, as after execve(2); nobody inherits any."""
    names = sorted(capabilities)
    effective = names if uid == 0 else []
    return {
        "bounding": names,
        "effective": effective,
        "permitted": effective,
        "inheritable": [],
        "ambient": [],
    }


def capability_set(spec: ContainerSpec, host: HostLimits) -> frozenset[str]:
    """The default set, minus `cap_drop`, plus `cap_add`; `ALL` means all this host has.

    Raises:
        InvalidInput: there is no such capability.  Unsupported: the host itself lacks one that was added.
    """
    dropped, added = _capability_names(spec.cap_drop), _capability_names(spec.cap_add)
    base = frozenset() if "CAP_ALL" in dropped else DEFAULT_CAPABILITIES - dropped
    if "CAP_ALL" in added:
        return host.capabilities - dropped
    if missing := sorted(added - host.capabilities):
        raise Unsupported(f"{spec.name}: this host cannot grant the capability {', '.join(missing)}.")
    return (base & host.capabilities) | added


def rlimits(ulimits: Mapping[str, Ulimit], host: HostLimits) -> list[dict[str, Any]]:
    """The limits asked for, cut down to the hard limits of this process where it may not raise them."""
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": _number(limit.soft), "hard": _number(limit.hard)}
        for name, limit in granted_limits(ulimits, host).items()
    ]


def granted_limits(ulimits: Mapping[str, Ulimit], host: HostLimits) -> dict[str, Ulimit]:
    """Raises InvalidInput: there is no such limit."""
    if unknown := sorted(set(ulimits) - _LIMIT_NAMES):
        raise InvalidInput(f"There is no ulimit {unknown[0]!r}; known are {', '.join(sorted(_LIMIT_NAMES))}.")
    wanted = {"nofile": _DEFAULT_NOFILE} | dict(ulimits)
    return {name: _cut(limit, _ceiling(name, host)) for name, limit in wanted.items()}


def _ceiling(name: str, host: HostLimits) -> float:
    hard = host.hard_limits.get(name, -1)
    return math.inf if host.may_raise_limits or hard == -1 else hard


def _cut(limit: Ulimit, ceiling: float) -> Ulimit:
    hard = _least(limit.hard, ceiling)
    return Ulimit(soft=_least(limit.soft, math.inf if hard == -1 else hard), hard=hard)


def _least(value: int, ceiling: float) -> int:
    result = min(math.inf if value == -1 else value, ceiling)
    return -1 if result == math.inf else int(result)


def _number(limit: int) -> int:
    return _UNLIMITED if limit == -1 else limit


def _capability_names(names: Sequence[str]) -> frozenset[str]:
    full = {name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}" for name in names}
    for name in sorted(full):
        if not re.fullmatch(r"CAP_[A-Z_]{3,30}", name):
            raise InvalidInput(f"There is no capability {name[:40]!r}.")
    return frozenset(full)


def _namespaces(netns: Path | None) -> list[dict[str, str]]:
    network = {"type": "network", "path": str(netns)} if netns else {"type": "network"}
    return [network, *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup"))]


def _resources(spec: ContainerSpec, host: HostLimits) -> dict[str, Any]:
    resources: dict[str, Any] = {"devices": _device_rules(), "pids": {"limit": spec.pids}}
    if spec.memory is not None:
        resources["memory"] = {"limit": spec.memory}
        if host.swap_accounting:
            resources["memory"]["swap"] = spec.memory  # memory + swap: nothing of it may be swapped out
    if spec.memory_reservation is not None:
        resources.setdefault("memory", {})["reservation"] = spec.memory_reservation
    if spec.cpus is not None:
        quota = max(1_000, round(spec.cpus * _CPU_PERIOD))
        resources["cpu"] = {"quota": quota, "period": _CPU_PERIOD}
    if shares := _CPU_SHARES.get(spec.priority):
        resources.setdefault("cpu", {})["shares"] = shares
    return resources


def _device_rules() -> list[dict[str, Any]]:
    allowed: list[dict[str, Any]] = [
        {"allow": True, "type": "c", "major": major, "access": "rwm"}
        | ({"minor": minor} if minor is not None else {})
        for major, minor in _DEVICES
    ]
    nodes = [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
    return [{"allow": False, "access": "rwm"}, *nodes, *allowed]


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    for name in spec.sysctls:
        if not _SYSCTLS.fullmatch(name):
            raise InvalidInput(
                f"{spec.name}: the sysctl {name[:80]!r} belongs to the host, not to a container."
            )
    return _DEFAULT_SYSCTLS | spec.sysctls


def _standard_mounts(spec: ContainerSpec) -> list[BundleMount]:
    hard = ("nosuid", "noexec", "nodev")
    return [
        _standard("/proc", "proc", "proc", *hard),
        _standard("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _standard(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ),
        _standard("/dev/shm", "tmpfs", "shm", *hard, "mode=1777", f"size={spec.shm_size}"),  # noqa: S108
        _standard("/dev/mqueue", "mqueue", "mqueue", *hard),
        _standard("/sys", "sysfs", "sysfs", *hard, "ro"),
        _standard("/sys/fs/cgroup", "cgroup", "cgroup", *hard, "relatime", "ro"),
    ]


def _in_order(bundle: Bundle) -> list[BundleMount]:
    """The engine's own after the tenant's: a volume that a link leads to /dev must not become /dev.

    The runtime masks files with /dev/null; a volume in its place could put a link to anything there.  Paths
    of the host are mounted for admins only, who may want them over /sys.
    """
    own = [*_standard_mounts(bundle.spec), *_init_mount(bundle)]
    if any(mount.path for mount in bundle.spec.mounts):
        return [*own, *bundle.mounts]
    inside = [mount for mount in bundle.mounts if mount.destination.startswith("/dev/")]
    return [*(mount for mount in bundle.mounts if mount not in inside), *own, *inside]


def _standard(destination: str, kind: str, source: str, *options: str) -> BundleMount:
    return BundleMount(destination=destination, type=kind, source=source, options=options)


def _init_mount(bundle: Bundle) -> list[BundleMount]:
    if not bundle.init:
        return []
    return [
        BundleMount(
            destination=INIT_TARGET, source=str(bundle.init), options=("bind", "ro", "nosuid", "nodev")
        )
    ]


def _mount(mount: BundleMount) -> dict[str, Any]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }

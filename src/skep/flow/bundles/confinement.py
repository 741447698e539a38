"""How the process of a bundle gives up what it has no right to, before any code of the bundle runs.

A root of its own with nothing but Python and the bundle in it, read-only; no network; nobody else's
processes in sight; a user nobody else is; no way to gain privileges; limits of memory, processes and files.
Linux only; as root, or where users may make namespaces.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from skep.flow.bundles.protocol import Confinement

FIRST_USER = 1_900_000_000
"""Users of bundles: from here on, 2²⁰ of them.  No system gives these to anybody."""
PROCESSES = 64
FILES = 256
SCRATCH = "64m"
SIGNALLED = 128
"""An exit code above means: killed by the signal of that number more, as shells say it."""

_libc = ctypes.CDLL(None, use_errno=True)

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 32, 4096
_MS_REC, _MS_PRIVATE = 16384, 1 << 18
_MNT_DETACH = 2
_NEWNS, _NEWUTS, _NEWIPC = 0x20000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_CAPABILITIES_3 = 0x20080522

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
_NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/ca-certificates")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def user_of(bundle: str) -> int:
    """The user that the bundle of this hash runs as."""
    return FIRST_USER + int(bundle[:5], 16)


def confine(wanted: Confinement, home: str, keep: socket.socket) -> None:
    """Confine this process for good; returns in a child of it, and each of the two ends with the other.

    Call it with one thread only.  `keep` stays open in the child alone.

    Raises:
        OSError: the system does not permit it.  Nothing may be run then.
    """
    die_with_parent()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _unshare(wanted.network)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    _build_root(wanted, home)
    _enter_root(wanted.root)
    _become_child(keep)
    _mount_quietly("proc", "/proc", "proc")
    _call("mount", None, b"/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID, None)
    _limit(pages * resource.getpagesize() + wanted.memory)
    _drop_privileges(wanted.user)
    die_with_parent()  # a change of user forgets it
    os.chdir(home)


def die_with_parent() -> None:
    """Be killed when the parent dies."""
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _unshare(network: bool) -> None:
    flags = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | (0 if network else _NEWNET)
    if os.geteuid() == 0:
        _call("unshare", flags)
        return
    user, group = os.getuid(), os.getgid()
    _call("unshare", flags | _NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _build_root(wanted: Confinement, home: str) -> None:
    root = Path(wanted.root)
    _call("mount", b"tmpfs", bytes(root), b"tmpfs", _MS_NOSUID, b"mode=755,size=1m")
    for folder in ("tmp", "proc"):
        (root / folder).mkdir()
    options = f"mode=1777,size={SCRATCH}".encode()
    _call("mount", b"tmpfs", bytes(root / "tmp"), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)
    names = _NAMES if wanted.network else ()
    for path in (*_SYSTEM, *names, *wanted.visible, home):
        _show(Path(path), wanted.root, _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    for path in _DEVICES:
        _show(Path(path), wanted.root, _MS_NOSUID)


def _show(source: Path, root: str, flags: int) -> None:
    """Make the file or directory visible at the same place below the root."""
    target = Path(root + str(source))
    if not source.exists() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and source.parent == Path("/"):  # /lib → usr/lib
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    place = str(target).encode()
    below = 0 if os.geteuid() == 0 else _MS_REC  # a user may not leave out what is mounted below; root does
    _call("mount", bytes(source.resolve()), place, None, _MS_BIND | below, None)
    _call("mount", None, place, None, _MS_REMOUNT | _MS_BIND | flags, None)


def _enter_root(root: str) -> None:
    os.chdir(root)
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"no way to change the root on {os.uname().machine}")
    _call("syscall", number, b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def _become_child(keep: socket.socket) -> None:
    """Go on as the first process of the new process namespace; this one only waits for it."""
    child = os.fork()
    if child == 0:
        return
    keep.close()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else SIGNALLED - code)


def _limit(room: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _drop_privileges(user: int) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)


def _mount_quietly(kind: str, place: str, source: str) -> None:
    """Inside a container /proc may be refused; Python does without."""
    _libc.mount(source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(_MS_NOSUID | _MS_NODEV), None)


def _call(name: str, *arguments: object) -> None:
    """A call of the C library; raises OSError if it fails."""
    given = [ctypes.c_ulong(item) if isinstance(item, int) else item for item in arguments]
    if getattr(_libc, name)(*given) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def python_paths() -> tuple[str, ...]:
    """Where this interpreter and the packages that a step needs (skep's own) are installed."""
    import msgspec
    import sqlalchemy
    import structlog
    import yaml
    import zstandard

    import skep

    packages = (skep, msgspec, sqlalchemy, structlog, yaml, zstandard)
    folders = (str(Path(str(module.__file__)).parents[1]) for module in packages)
    return tuple(dict.fromkeys((sys.base_prefix, *folders)))

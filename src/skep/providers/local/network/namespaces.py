"""Network namespaces: made, entered and removed without any process of their own.

Every job runs in a thread of a small pool that first moves into the namespace it was asked for and comes
back afterwards (setns(2) acts on one thread), so the event loop's thread never leaves its namespace and no
idle thread keeps a deleted namespace alive.
"""

import asyncio
import ctypes
import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from skep.model.errors import HostFailure
from skep.providers.local.network.naming import NETNS

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 1 << 20
_MNT_DETACH = 2
_OWN = b"/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """Runs jobs inside network namespaces; `host` is the namespace the machine's own addresses are in."""

    def __init__(self, host: Path = Path("/proc/self/ns/net"), *, threads: int = 4) -> None:
        self._host_path = host
        self._threads = threads
        self._shared = False

    async def __aenter__(self) -> Self:
        self._host = os.open(self._host_path, os.O_RDONLY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(self._threads, "skep-network")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        os.close(self._host)

    @property
    def host_reference(self) -> str:
        """The host's namespace as a path that tools which `ip` starts can open."""
        return f"/proc/{os.getpid()}/fd/{self._host}"

    async def on_host(self, job: Callable[[], T]) -> T:
        """Run the blocking job in the host's namespace."""
        return await self._in_thread(lambda: self._run(self._host, job))

    async def inside(self, namespace: Path, job: Callable[[], T]) -> T:
        """Run the blocking job in the namespace.  Raises HostFailure: there is none."""

        def enter() -> T:
            descriptor = _open(namespace)
            try:
                return self._run(descriptor, job)
            finally:
                os.close(descriptor)

        return await self._in_thread(enter)

    async def in_each(self, work: Iterable[tuple[Path, Callable[[], T]]]) -> list[T | HostFailure | OSError]:
        """Run short blocking jobs, each inside its namespace, one after the other; answers what each did."""

        def enter(namespace: Path, job: Callable[[], T]) -> T | HostFailure | OSError:
            try:
                descriptor = _open(namespace)
                try:
                    return self._run(descriptor, job)
                finally:
                    os.close(descriptor)
            except (HostFailure, OSError) as error:
                return error

        return await self._in_thread(lambda: [enter(namespace, job) for namespace, job in work])

    async def create(self, namespace: Path, prepare: Callable[[], None]) -> None:
        """Make the namespace unless it is there; `prepare` runs inside before it gets its name."""

        def create() -> None:
            if not exists(namespace):
                self._create(namespace, prepare)

        await self._in_thread(create)

    async def remove(self, namespace: Path) -> None:
        """Take the name away; the kernel frees the namespace when nothing is left inside."""
        await self._in_thread(lambda: remove(namespace))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """A thread cannot be interrupted: who is cancelled waits for it, and so keeps its locks till then."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def _run(self, descriptor: int, job: Callable[[], T]) -> T:
        _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns")
        try:
            return job()
        finally:
            _check(_libc.setns(self._host, _CLONE_NEWNET), "setns")

    def _create(self, namespace: Path, prepare: Callable[[], None]) -> None:
        if not self._shared:
            _share_directory()
            self._shared = True
        namespace.touch(mode=0o444)
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            prepare()
            _check(_libc.mount(_OWN, os.fsencode(namespace), None, _MS_BIND, None), f"mount {namespace}")
        except BaseException:
            namespace.unlink()
            raise
        finally:
            _check(_libc.setns(self._host, _CLONE_NEWNET), "setns")


def identity(namespace: Path) -> int | None:
    """A number that tells the namespace from any other, also from a later one of the same name."""
    try:
        found, own = namespace.stat(), Path("/proc/self/ns/net").stat()
    except FileNotFoundError:
        return None
    return found.st_ino if found.st_dev == own.st_dev else None


def exists(namespace: Path) -> bool:
    return identity(namespace) is not None


def remove(namespace: Path) -> None:
    while exists(namespace):
        _check(_libc.umount2(os.fsencode(namespace), _MNT_DETACH), f"umount {namespace}")
    namespace.unlink(missing_ok=True)


def _open(namespace: Path) -> int:
    if not exists(namespace):
        raise HostFailure(f"There is no network namespace {namespace}.")
    return os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)


def _share_directory() -> None:
    """Make /run/netns a shared mount as `ip netns` does, under the same lock (iproute2, ip/ipnetns.c)."""
    NETNS.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(NETNS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_mount_point(NETNS):
            path = os.fsencode(NETNS)
            _check(_libc.mount(path, path, None, _MS_BIND | _MS_REC, None), "mount /run/netns")
            _check(_libc.mount(None, path, None, _MS_SHARED | _MS_REC, None), "mount /run/netns")
    finally:
        os.close(lock)


def _is_mount_point(path: Path) -> bool:
    """Asked of mountinfo: Path.is_mount() does not see a bind mount within one file system, and every further
    bind of a shared directory onto itself would double all mounts below it."""
    rows = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    return any(row.split(" ", 5)[4] == str(path) for row in rows)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise HostFailure(f"{what}: {os.strerror(ctypes.get_errno())}")

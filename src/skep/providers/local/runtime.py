"""conmon and an OCI runtime, driven from outside.

conmon makes the container (through the runtime), holds its terminal or pipes, writes its log, and leaves the
exit code in a file; so a container outlives the process that started it.  Everything here blocks and is
called from threads by the agent.  Starting costs exactly one conmon and two runtime processes (create,
start); deleting costs none, since what a runtime leaves behind is a control group and a directory.
Formats: conmon(8), runc(8).
"""

import ctypes
import json
import os
import platform
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, Unavailable
from skep.providers.local.bundle import HostLimits
from skep.providers.local.cgroups import Cgroups, swap_accounting
from skep.providers.local.processes import has_argument, hold, read_pid

_PR_CAPBSET_READ = 23
_CREATE_TIMEOUT = 60.0
_LOG_EMERGENCY = 64 * 1024 * 1024
"""conmon itself starts the log afresh beyond this: the bound for a flood between two rotations."""
_REOPEN_LOG = b"2 0 0\n"
"""Message to conmon's `ctl` FIFO (conmon, src/ctrl.c: REOPEN_LOGS_EVENT)."""
_CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""In the order of their numbers (linux/capability.h)."""
_INITS = (
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/tini-static",
    "/usr/bin/docker-init",
)
_EXEC_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StartRefused(Exception):
    """The runtime would not make or start the container; the message is its own."""


class Started(msgspec.Struct, frozen=True):
    """A container that runs: its first process."""

    pid: int


class Runtime:
    """The OCI runtime of one instance.  `run` is lost at a reboot, as everything in it should be."""

    def __init__(
        self,
        *,
        run: Path,
        cgroups: Cgroups,
        binary: Path,
        conmon: Path,
        host: HostLimits,
        init: Path | None = None,
    ) -> None:
        self.cgroups = cgroups
        self.host = host
        self.init = init
        self.binary = binary
        self._conmon = conmon
        self._state = run / "runc"
        self._exits = run / "exits"
        self._sockets = run / "sockets"
        self._bundles = run / "containers"

    @classmethod
    def find(cls, *, instance: str, run: Path) -> "Runtime":
        """Look at the host and take the runtime that works on it.

        Raises:
            Unavailable: a program is missing; the message says which package has it.
        """
        cgroups = Cgroups(instance)
        init = next((Path(path) for path in _INITS if Path(path).exists()), None)
        return cls(
            run=run,
            cgroups=cgroups,
            binary=_runtime_for(cgroups.mode),
            conmon=_program("conmon"),
            host=host_limits(cgroups),
            init=init,
        )

    def bundle(self, container: str) -> Path:
        """The directory for the container's config.json and root file system."""
        return self._bundles / container

    def prepare(self) -> None:
        """Make the directories shared by all containers."""
        for directory in (self._state, self._exits, self._sockets, self._bundles):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self, container: str, log: Path, *, tty: bool = False, stdin: bool = False) -> Started:
        """Create the container from its bundle and start it.

        Raises:
            StartRefused: the runtime says no; what it left must be deleted by the caller.
        """
        self._exit_file(container).unlink(missing_ok=True)
        pid = self._create(container, log, [*(["-t"] if tty else []), *(["-i"] if stdin else [])])
        _let_go(self._state / container / "exec.fifo", pid)
        return Started(pid)

    def monitor(self, container: str) -> int | None:
        """A pidfd of the container's conmon; None when it does not live."""
        pid = read_pid(self.bundle(container) / "conmon.pid")
        return hold(pid, lambda it: has_argument(it, container)) if pid else None

    def lives(self, container: str) -> bool:
        """Whether it was started and its conmon still watches over it."""
        if (monitor := self.monitor(container)) is None:
            return False
        os.close(monitor)
        return self.was_started(container)

    def first_process(self, container: str) -> int | None:
        """A pidfd of the container's first process; None when it does not live."""
        pid = self.pid(container)
        return hold(pid, lambda it: self.cgroups.contains(container, it)) if pid else None

    def pid(self, container: str) -> int | None:
        """The pid that the container's first process has or had."""
        return read_pid(self.bundle(container) / "pid")

    def was_started(self, container: str) -> bool:
        """False while the container is created only: its first process waits at a FIFO for the start."""
        state = self._state / container
        return state.is_dir() and not (state / "exec.fifo").exists()

    def exit_code(self, container: str) -> int | None:
        """What conmon noted; None when it did not live to see the end."""
        return read_pid(self._exit_file(container))

    def delete(self, container: str) -> None:
        """Kill what is left and remove the runtime's traces, however much of them there is.

        Raises:
            HostFailure: a process hangs in the kernel.
        """
        self._end_monitor(container)
        self.cgroups.kill(container)
        self.cgroups.remove(container)
        shutil.rmtree(self._state / container, ignore_errors=True)
        self._exit_file(container).unlink(missing_ok=True)
        (self._sockets / container).unlink(missing_ok=True)

    def reopen_log(self, container: str) -> None:
        """Tell conmon to close its log and open the path anew.  Nobody there to hear it is success."""
        try:
            fifo = os.open(self.bundle(container) / "ctl", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return
        try:
            os.write(fifo, _REOPEN_LOG)
        finally:
            os.close(fifo)

    def exec_command(
        self, container: str, process: Path, pid_file: Path, log: Path, *, tty: bool
    ) -> Sequence[str]:
        """The command that runs the process described by the file in the container, in the foreground."""
        terminal = ["--tty"] if tty else []
        root = [str(self.binary), f"--root={self._state}", f"--log={log}", "--log-format=json"]
        return [*root, "exec", *terminal, f"--process={process}", f"--pid-file={pid_file}", container]

    def known(self) -> set[str]:
        """Every container of which something is left on the host, running or not."""
        places = (self._bundles, self._state)
        return {entry.name for place in places if place.is_dir() for entry in place.iterdir()} | set(
            self.cgroups.members()
        )

    def _create(self, container: str, log: Path, options: Sequence[str]) -> int:
        bundle = self.bundle(container)
        for name in ("pid", "conmon.pid"):
            (bundle / name).unlink(missing_ok=True)
        report, conmon_end = os.pipe()
        try:
            try:
                self._run_conmon(self._conmon_command(container, bundle, log, options), bundle, conmon_end)
            finally:
                os.close(conmon_end)
            return _created(_read_report(report))
        finally:
            os.close(report)

    def _run_conmon(self, command: Sequence[str], bundle: Path, report: int) -> None:
        """conmon forks: the parent ends at once, the child lives as long as the container."""
        errors = bundle / "conmon.err"
        with errors.open("wb") as stderr:
            code = subprocess.call(
                command,
                cwd="/",
                env={"PATH": _EXEC_PATH, "_OCI_SYNCPIPE": str(report)},
                pass_fds=[report],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        if code:
            raise StartRefused(errors.read_text(errors="replace").strip() or f"conmon ended with {code}")

    def _conmon_command(self, container: str, bundle: Path, log: Path, options: Sequence[str]) -> list[str]:
        return [
            str(self._conmon), "--api-version", "1",
            "-c", container, "-u", container, "-n", container,
            "-r", str(self.binary), "--runtime-arg", f"--root={self._state}",
            "-b", str(bundle), "-p", str(bundle / "pid"), "-P", str(bundle / "conmon.pid"),
            "-l", f"k8s-file:{log}", "--log-size-max", str(_LOG_EMERGENCY), "--no-sync-log",
            "--exit-dir", str(self._exits), "--socket-dir-path", str(self._sockets),
            *options,
        ]  # fmt: skip

    def _end_monitor(self, container: str) -> None:
        """SIGKILL: a living conmon would go on to write an exit file that nobody wants."""
        if (monitor := self.monitor(container)) is None:
            return
        try:
            signal.pidfd_send_signal(monitor, signal.SIGKILL)
            select.select([monitor], [], [], 1.0)
        except ProcessLookupError:
            pass
        finally:
            os.close(monitor)

    def _exit_file(self, container: str) -> Path:
        return self._exits / container


def _let_go(fifo: Path, pid: int) -> None:
    """Let a created container begin: what `runc start` does, without a process that costs ten milliseconds.

    The container's init waits until somebody reads the byte that it writes into this FIFO, and a container
    whose FIFO is gone counts as running (runc: libcontainer/container_linux.go, `exec` and `runType`; crun
    keeps the same file).

    Raises:
        StartRefused: the init ended before it began.
    """
    try:
        init = os.pidfd_open(pid)
    except ProcessLookupError:
        raise StartRefused("the container's first process ended before it began") from None
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        waiting = select.poll()
        waiting.register(reader, select.POLLIN)
        waiting.register(init, select.POLLIN)
        ready = {descriptor for descriptor, _ in waiting.poll(_CREATE_TIMEOUT * 1000)}
        if reader not in ready or not os.read(reader, 1):
            raise StartRefused("the container's first process ended before it began")
    finally:
        os.close(reader)
        os.close(init)
    fifo.unlink()


def host_limits(cgroups: Cgroups) -> HostLimits:
    """What this process may hand on to containers."""
    names = {name: value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
    hard = {
        name.removeprefix("RLIMIT_").lower(): resource.getrlimit(value)[1] for name, value in names.items()
    }
    return HostLimits(
        capabilities=_bounding_set(),
        hard_limits=hard,
        machine=platform.machine(),
        swap_accounting=swap_accounting(cgroups),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
    )


def _bounding_set() -> frozenset[str]:
    libc = ctypes.CDLL(None)
    return frozenset(
        f"CAP_{name}"
        for number, name in enumerate(_CAPABILITIES)
        if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1
    )


def _runtime_for(mode: str) -> Path:
    """runc works everywhere; crun refuses the hybrid hierarchy, so it serves only where v2 is alone."""
    if found := shutil.which("runc", path=_EXEC_PATH):
        return Path(found)
    if mode == "v2" and (found := shutil.which("crun", path=_EXEC_PATH)):
        return Path(found)
    raise Unavailable("The program 'runc' is missing: apt-get install runc.")


def _program(name: str) -> Path:
    if found := shutil.which(name, path=_EXEC_PATH):
        return Path(found)
    raise Unavailable(f"The program '{name}' is missing: apt-get install {name}.")


def _read_report(pipe: int) -> bytes:
    """One line of JSON from conmon, or less when it died."""
    deadline, report = time.monotonic() + _CREATE_TIMEOUT, b""
    while not report.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise HostFailure(f"conmon did not make the container within {_CREATE_TIMEOUT:.0f} seconds.")
        chunk = os.read(pipe, 65_536)
        if not chunk:
            break
        report += chunk
    return report


def _created(report: bytes) -> int:
    try:
        answer = json.loads(report)
        pid = int(answer["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise StartRefused(f"conmon ended early: {report.decode(errors='replace')!r}") from error
    if pid <= 0:
        raise StartRefused(str(answer.get("message", "no reason given")).strip())
    return pid

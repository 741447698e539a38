"""A machine of the test cluster: namespaces for network, processes, mounts, host name, and what runs in them.

Its first process is its power: when that is killed, the kernel ends everything that ran there, containers
too, and nothing of its mounts is left.  Its disk is a folder that is `/var` in it; `/usr` and `/etc` are the
real machine's, read-only.  Nothing else of that is seen, so that nothing of it is held or changed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from tests.cluster.kubernetes import cgroups
from tests.cluster.kubernetes.layout import Layout
from tests.cluster.kubernetes.progress import Failed, run

PROGRAMS = Path("/var/opt/kubernetes")
"""Where machines see what was built."""
PATIENCE = 60.0
"""Seconds for what the kernel does at once on an idle machine."""
_PATH = f"{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin"
_INSIDE = Path(__file__).with_name("inside.py")
_MARK = "SKEP_KUBERNETES"
"""A variable of every process here: a pid may be somebody else's by now."""
# What kubelet would set on the real machine gets a copy that it may set.
_SETTINGS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}

_SETUP = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 root "$ROOT"
cd "$ROOT"
mkdir old usr etc var run tmp proc sys dev
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L /$name ]; then cp -P /$name .; elif [ -d /$name ]; then mkdir $name; mount --bind /$name $name; fi
done
for name in usr etc; do mount --bind /$name $name; mount -o remount,bind,ro $name; done
mount --bind "$DISK" var
mount --bind "$PROGRAMS" var/opt/kubernetes
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount --bind /dev dev
mount -t proc proc proc
for file in "$SETTINGS"/*; do mount --bind $file proc/sys/$(basename $file | tr . /); done
mount -t sysfs sys sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
hostname "$NAME"
pivot_root . old
umount -l /old
rmdir /old
mkdir /run/lock
mount --make-rshared /
"""


class Machine:
    """One of the cluster's, by name.  Programs in it are started, and known, by names of ours."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout = layout
        self.name = name
        self.folder = layout.folder / name

    @property
    def address(self) -> IPv4Address:
        return self.layout.address(self.name)

    @property
    def disk(self) -> Path:
        """Its /var, from outside."""
        return self.folder / "var"

    @property
    def init(self) -> int | None:
        """The pid of its first process while it is on."""
        return self._alive("init")

    def boot(self, programs: Path) -> None:
        """Switch it on, if it is off.  Its network namespace must be there."""
        if self.init is not None:
            return
        for folder in ("root", "settings", "pids", "var/log", "var/lib", "var/opt/kubernetes"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        for key, value in _SETTINGS.items():
            (self.folder / "settings" / key.replace("/", ".")).write_text(f"{value}\n")
        cgroups.make(self.cgroup)
        places = {
            "ROOT": self.folder / "root",
            "DISK": self.disk,
            "SETTINGS": self.folder / "settings",
            "PROGRAMS": programs,
            "NAME": self.name,
        }
        namespace = self.layout.namespace(self.name)
        # It waits for orphans, which is what an init is for.
        init = ["catatonit", "--", "sleep", "infinity"]
        words: list[str | Path] = ["boot", namespace, self.log("init"), _SETUP, *init]
        self._start("init", words, {key: str(value) for key, value in places.items()})

    @property
    def cgroup(self) -> str:
        """Where its containers are, in each hierarchy."""
        return f"{self.layout.prefix}/{self.name}"

    def power_off(self) -> None:
        """As if somebody pulled the plug; `boot` switches it on again.  What is beside it goes on."""
        self.kill("init")

    def start(self, program: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Let it run in the background, if it does not yet; it writes to a log of its name."""
        if self.running(program):
            return
        init = self.init
        if init is None:
            raise Failed(f"{self.name} is off; boot it before {program} is started.")
        self._start(program, ["start", str(init), self.log(program), "-", *command], environment or {})

    def running(self, program: str) -> bool:
        return self._alive(program) is not None

    def pid(self, program: str) -> int:
        """Outside of the machine.  Raises Failed: it does not run."""
        if (found := self._alive(program)) is None:
            raise Failed(f"{program} of {self.name} does not run.")
        return found

    def kill(self, program: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait until it has ended; that it has already is success."""
        if (pid := self._alive(program)) is not None:
            os.kill(pid, how)
            wait_until(lambda: _has_ended(pid), PATIENCE, f"{program} of {self.name} has ended")
        self._pid_file(program).unlink(missing_ok=True)

    def start_beside(self, program: str, command: list[str], environment: Mapping[str, str]) -> None:
        """The same for a program of the real machine that is to be in this one's network alone."""
        if not self.running(program):
            namespace = self.layout.namespace(self.name)
            self._start(program, ["beside", namespace, self.log(program), "-", *command], environment)

    def write(self, path: str, content: bytes) -> None:
        """A file below its /var, for root alone.  If it is so it is not touched: kube-proxy would end."""
        file = self.disk / Path(path).relative_to("/var")
        if file.exists() and file.read_bytes() == content:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(content)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """What a command prints that runs in it.  Raises Failed."""
        init = self.init
        if init is None:
            raise Failed(f"{self.name} is off.")
        flags = ["--mount", "--uts", "--net", "--pid"]
        return run(["nsenter", "--target", str(init), *flags, "--", *command], stdin=stdin)

    def log(self, program: str) -> Path:
        return self.disk / f"log/{program}.log"

    def said(self, program: str, lines: int = 20) -> str:
        """The end of its log."""
        path = self.log(program)
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _start(self, program: str, words: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        mark = {"PATH": _PATH, "HOME": "/tmp", _MARK: f"{self.folder}/{program}"}
        settings = [f"{key}={value}" for key, value in (mark | dict(environment)).items()]
        pid = run(["env", "-i", *settings, sys.executable, "-I", "-S", _INSIDE, *words])
        self._pid_file(program).write_text(pid)

    def _pid_file(self, program: str) -> Path:
        return self.folder / "pids" / program

    def _alive(self, program: str) -> int | None:
        with suppress(OSError, ValueError):
            pid = int(self._pid_file(program).read_text())
            mark = f"{_MARK}={self.folder}/{program}".encode()
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        return None


def _has_ended(pid: int) -> bool:
    """Whether nothing is left of it but what its parent has not heard: an init ends after all the others."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(true: Callable[[], bool], patience: float, what: str, every: float = 0.2) -> None:
    """Raises Failed: it is still not so when our patience ends."""
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(every)

"""The process of HAProxy: nobody's child, without privileges but to bind low ports.

It is replaced without closing a port: the new one takes the sockets over from the old one through the runtime
API (`-x`) and tells it to end when its connections do (`-sf`).
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from skep.model.errors import Conflict, HostFailure
from skep.providers.local.edge.place import Place, account
from skep.providers.local.processes import ExitWatch, has_argument, hold, read_pid, send

_BIND = "-all,+net_bind_service"
_TAKEN = "Address already in use"
_PATIENCE = 30.0


class Process:
    """At most one takes new connections; others may be ending."""

    def __init__(self, place: Place, enter: tuple[str, ...], ended: Callable[[], None]) -> None:
        self._place = place
        self._enter = enter
        self._ended = ended
        self._watch: ExitWatch | None = None

    @property
    def runs(self) -> bool:
        return self._watch is not None

    def is_alone(self) -> bool:
        """Whether none that it replaced still ends what it began."""
        return len(living(self._place)) <= 1

    def adopt(self) -> bool:
        """Watch the one that an earlier agent has started; False: there is none."""
        pid = read_pid(self._place.pid)
        held = hold(pid, self._is_ours) if pid is not None else None
        if held is None:
            return False
        self._hold(held)
        return True

    async def start(self) -> None:
        """With the configuration as it is in its file, in place of the one that runs.

        Raises:
            Conflict: another process has the port.  HostFailure: HAProxy does not start.
        """
        if self._watch is None:
            self.adopt()
        command = [*self._enter, *_unprivileged(), *self._command()]
        await asyncio.to_thread(_launch, self._place, command)
        if not self.adopt():
            raise HostFailure("HAProxy ended as soon as it was started.")

    def release(self) -> None:
        """Look no more after it; it goes on."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _hold(self, descriptor: int) -> None:
        self.release()
        self._watch = ExitWatch(descriptor, self._gone)

    def _gone(self) -> None:
        self._watch = None
        self._ended()

    def _is_ours(self, pid: int) -> bool:
        return has_argument(pid, str(self._place.config))

    def _command(self) -> list[str]:
        return ["haproxy", "-D", "-f", str(self._place.config), "-p", str(self._place.pid)]


def _unprivileged() -> list[str]:
    uid, gid = account()
    return [
        "setpriv",
        *(f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={_BIND}", f"--ambient-caps={_BIND}", f"--bounding-set={_BIND}"),
    ]


def _launch(place: Place, command: list[str]) -> None:
    """Raises Conflict, HostFailure.  Its output goes to a file: a pipe would stay open in what it leaves."""
    old = [str(pid) for pid in living(place)]
    again = [*(["-x", str(place.admin)] if _answers(place.admin) else []), *(["-sf", *old] if old else [])]
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*command, *again],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            timeout=_PATIENCE,
        )
        output.seek(0)
        said = output.read(64 * 1024).decode(errors="replace").strip()
    if done.returncode:
        raise _refusal(said)


def _answers(admin: Path) -> bool:
    """Whether one is there that hands its sockets over: it may have died a moment ago."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(admin)) == 0


def _refusal(said: str) -> Exception:
    if _TAKEN in said:
        ports = ", ".join(sorted(set(re.findall(r"\[[^\]]*:(\d+)\]", said))))
        return Conflict(
            f"The edge of this host cannot listen: another process has its port ({ports}). End that one, or "
            "set 'edge_http' and 'edge_https' to other ports, or to 0."
        )
    return HostFailure(f"HAProxy does not start: {said[-1000:]}")


def has_ipv6() -> bool:
    """Whether the kernel does: it may have been started without."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


def living(place: Place) -> list[int]:
    """Every HAProxy of this edge, also those that are ending."""
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in found if has_argument(pid, str(place.config)) and has_argument(pid, "-D")]


async def end_all(place: Place) -> None:
    """Raises HostFailure: one does not die."""
    for _ in range(int(_PATIENCE / 0.05)):
        left = living(place)
        if not left:
            return
        for pid in left:
            held = hold(pid, lambda found: has_argument(found, str(place.config)))
            if held is not None:
                send(held, signal.SIGKILL)
                _close(held)
        await asyncio.sleep(0.05)
    raise HostFailure(f"HAProxy does not die: process {left[0]}.")


def _close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)

"""What runs in a container and how one knows that it is well: commands, signals, capabilities, health."""

import re
import shlex
import signal

from skep.compose.cursor import Cursor
from skep.model.spec import HealthCheck

CAPABILITIES = frozenset(
    {"AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE"}
    | {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL"}
    | {"LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN"}
    | {"NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP"}
    | {"SETUID", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT"}
    | {"SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM"}
)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,63}}\Z){_LABEL}(\.{_LABEL})*")


def read_command(cursor: Cursor) -> tuple[str, ...] | None:
    """Words of a command; text is split as a shell would.  None keeps the image's, () clears it."""
    if not cursor.exists:
        return None
    if isinstance(cursor.node.value, list):
        return cursor.texts()
    try:
        return tuple(shlex.split(cursor.text() or ""))
    except ValueError as error:
        cursor.error(f"cannot be split into words: {str(error).lower()}")
        return None


def read_capabilities(cursor: Cursor) -> tuple[str, ...]:
    """Capabilities with their full names (`CAP_NET_ADMIN`), or `ALL`."""
    result: dict[str, None] = {}
    for item in cursor.items():
        name = (item.text() or "").upper().removeprefix("CAP_")
        if name == "ALL":
            result["ALL"] = None
        elif name in CAPABILITIES:
            result[f"CAP_{name}"] = None
        else:
            item.error(f"{name[:40]!r} is no capability of Linux")
    return tuple(result)


def read_signal(cursor: Cursor) -> str | None:
    """`SIGTERM`, `term` or `15` as `SIGTERM`; real-time signals as `SIGRTMIN+3`."""
    text = cursor.text()
    if text is None:
        return None
    name = "SIG" + text.upper().removeprefix("SIG")
    if re.fullmatch(r"SIGRT(MIN(\+([1-9]|1[0-5]))?|MAX(-([1-9]|1[0-4]))?)", name):
        return name
    if text.isdecimal() and len(text) < 3 and int(text) in list(signal.Signals):
        return signal.Signals(int(text)).name
    if name in signal.Signals.__members__:
        return name
    cursor.error(f"{text[:40]!r} is no signal")
    return None


def read_hostname(cursor: Cursor) -> str | None:
    text = cursor.text()
    if text is not None and not _HOSTNAME.fullmatch(text):
        cursor.error(f"{text[:70]!r} is no host name: use up to 63 letters, digits, '-' and '.'")
        return None
    return text


def read_working_dir(cursor: Cursor) -> str | None:
    text = cursor.text()
    if text is not None and not text.startswith("/"):
        cursor.error("must be an absolute path in the container")
        return None
    return text


def read_health(cursor: Cursor) -> HealthCheck | None:
    """The health check; None keeps the image's own."""
    if not cursor.exists:
        return None
    if cursor.get("disable").boolean():
        return HealthCheck(test=("NONE",))
    test = _read_test(cursor.get("test"))
    if test is None:
        if not cursor.has("test"):
            cursor.warn("not acted on without `test`: the image's own check keeps its own times")
        return None
    durations = ("interval", "timeout", "start_period", "start_interval")
    times = {name: value for name in durations if (value := cursor.get(name).duration()) is not None}
    retries = cursor.get("retries").integer(0, 10_000) or 3
    return HealthCheck(test=test, retries=retries, **_nonzero(times))


def _nonzero(times: dict[str, float]) -> dict[str, float]:
    """0 asks for the default, as in the engines' own settings."""
    return {name: value for name, value in times.items() if value}


def _read_test(cursor: Cursor) -> tuple[str, ...] | None:
    if not cursor.exists:
        return None
    if not isinstance(cursor.node.value, list):
        return ("CMD-SHELL", cursor.text() or "")
    test = cursor.texts()
    kind, words = test[:1], len(test) - 1
    if kind == ("NONE",) or (kind == ("CMD",) and words) or (kind == ("CMD-SHELL",) and words == 1):
        return test
    cursor.error("must be [NONE], [CMD, program, arguments…] or [CMD-SHELL, text]")
    return None

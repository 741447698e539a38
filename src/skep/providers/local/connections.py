"""Who is connected to a container: the kernel's tables of its network namespace.

Format: proc(5) and the kernel's Documentation/networking/proc_net_tcp.rst.
"""

from pathlib import Path

_ESTABLISHED, _LISTEN = "01", "0A"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1, ::1 and ::ffff:127.0.0.1, as the tables have them: nobody from outside."""


def inbound(pid: int, proc: Path = Path("/proc")) -> int:
    """Open TCP connections to ports that something in the namespace of the process listens on."""
    return count("".join(_table(proc / str(pid) / "net" / name) for name in ("tcp", "tcp6")))


def count(tables: str) -> int:
    listening: set[str] = set()
    established: list[str] = []
    for line in tables.splitlines():
        fields = line.split()
        if len(fields) < 4 or ":" not in fields[1]:
            continue
        address, port = fields[1].split(":")
        if fields[3] == _LISTEN:
            listening.add(port)
        elif fields[3] == _ESTABLISHED and address not in _LOOPBACK:
            established.append(port)
    return sum(port in listening for port in established)


def _table(path: Path) -> str:
    """Without a table there are none: the process has ended, or the kernel knows no IPv6."""
    try:
        return path.read_text()
    except OSError:
        return ""

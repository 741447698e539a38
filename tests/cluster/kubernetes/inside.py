"""Start a program in a machine of the test cluster: a script of its own, because it changes its namespaces.

    python inside.py boot   NAMESPACE LOG SETUP PROGRAM…  make its namespaces, run SETUP by sh, become init
    python inside.py start  INIT      LOG -     PROGRAM…  start PROGRAM in the machine whose init has that pid
    python inside.py beside NAMESPACE LOG -     PROGRAM…  start PROGRAM, which is in its network alone

Prints the pid that PROGRAM has outside of the machine, once it runs.  A process cannot change its own pid
namespace, only that of its children (setns(2)): hence the fork.
"""

import ctypes
import os
import subprocess
import sys

_MOUNT, _UTS, _PROCESSES, _NETWORK = 0x00020000, 0x04000000, 0x20000000, 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(how: str, where: str, log: str, setup: str, *program: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    if how in ("boot", "beside"):
        _enter(f"/run/netns/{where}", _NETWORK)
    if how == "boot":
        _must(_LIBC.unshare(_MOUNT | _UTS | _PROCESSES), "unshare")
    if how == "start":
        for name, kind in (("net", _NETWORK), ("uts", _UTS), ("pid", _PROCESSES), ("mnt", _MOUNT)):
            _enter(f"/proc/{where}/ns/{name}", kind)
    # Both ends are closed by exec: the parent reads to the end, which is what went wrong, or nothing.
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        _become(output, writable, setup, program)
    os.close(writable)
    if complaint := os.fdopen(readable, "rb").read():
        sys.exit(complaint.decode(errors="replace"))
    print(pid)


def _become(output: int, complaints: int, setup: str, program: tuple[str, ...]) -> None:
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if setup != "-" and subprocess.run(["sh", "-euc", setup]).returncode:
            raise OSError("its set-up failed; the log says why")
        os.chdir("/")
        os.execvp(program[0], program)
    except BaseException as error:  # whatever it is, the parent tells
        os.write(complaints, f"{program[0]}: {error}".encode())
    finally:
        os._exit(1)


def _enter(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _must(_LIBC.setns(descriptor, kind), f"setns {path}")


def _must(answer: int, what: str) -> None:
    if answer:
        number = ctypes.get_errno()
        sys.exit(f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(*sys.argv[1:])

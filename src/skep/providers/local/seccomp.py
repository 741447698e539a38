"""The system calls a container may make.

`seccomp.json` holds the facts: what is always allowed, what is refused with EPERM, and what depends on a
capability.  They follow the default profiles of Docker (moby `profiles/seccomp`) and of containers-common:
calls unknown to the profile answer ENOSYS, so that C libraries fall back; namespaces, mounts and keyrings
are out of reach without CAP_SYS_ADMIN, and io_uring is out of reach altogether.  x32 is left out: nothing
uses it, and compiling the filter for it was a sixth of the CPU time of a start.
"""

from collections.abc import Iterable, Set
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

_EPERM, _ENOSYS = 1, 38
_AF_VSOCK = 40
_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET of clone(2)."""


class _Machine(msgspec.Struct, frozen=True):
    architectures: tuple[str, ...]
    allow: tuple[str, ...]


class _Facts(msgspec.Struct, frozen=True):
    allow: tuple[str, ...]
    refuse: tuple[str, ...]
    capabilities: dict[str, tuple[str, ...]]
    personalities: tuple[int, ...]
    machines: dict[str, _Machine]


def profile(capabilities: Set[str], machine: str) -> dict[str, Any]:
    """The `linux.seccomp` section of an OCI config for a container with these capabilities.

    `machine` is as in uname(2); one that the facts do not know is left to the architecture of the kernel.
    """
    facts = _facts()
    known = facts.machines.get(machine, _Machine((), ()))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": list(known.architectures),
        "syscalls": [
            _allow(_allowed(facts, known, capabilities)),
            _refuse(_refused(facts, capabilities)),
            *(_allow(["personality"], _argument(0, value, "EQ")) for value in facts.personalities),
            _allow(["socket"], _argument(0, _AF_VSOCK, "NE")),
            *_clone(capabilities),
        ],
    }


def _allowed(facts: _Facts, machine: _Machine, capabilities: Set[str]) -> list[str]:
    granted = [name for cap, names in facts.capabilities.items() if cap in capabilities for name in names]
    return sorted({*facts.allow, *machine.allow, *granted})


def _refused(facts: _Facts, capabilities: Set[str]) -> list[str]:
    granted = {name for cap, names in facts.capabilities.items() if cap in capabilities for name in names}
    withheld = {name for names in facts.capabilities.values() for name in names} - granted
    return sorted({*facts.refuse, *withheld})


def _clone(capabilities: Set[str]) -> list[dict[str, Any]]:
    """New namespaces need CAP_SYS_ADMIN.  clone3 hides its flags behind a pointer, so it does not exist."""
    if "CAP_SYS_ADMIN" in capabilities:
        return [_allow(["clone", "clone3"])]
    masked = {"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return [_allow(["clone"], masked)]


def _allow(names: Iterable[str], *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": list(arguments)}


def _refuse(names: Iterable[str]) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM, "args": []}


def _argument(index: int, value: int, comparison: str) -> dict[str, Any]:
    return {"index": index, "value": value, "op": f"SCMP_CMP_{comparison}"}


@cache
def _facts() -> _Facts:
    return msgspec.json.decode(files(__package__).joinpath("seccomp.json").read_bytes(), type=_Facts)

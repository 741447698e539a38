"""Ways out through the kernel that common container escapes have taken."""

import msgspec
import pytest
from tests.attack import weaker
from tests.attack.prison import Change, Prisoner

pytestmark = pytest.mark.root
KERNEL = "/attack/kernel"


class Attack(msgspec.Struct, frozen=True):
    """A program, why it loses inside, and the change of the container with which it wins."""

    args: tuple[str, ...]
    refusal: str
    off: Change


def kernel(*args: str, refusal: str = "Operation not permitted", off: Change = weaker.no_filter) -> Attack:
    return Attack((KERNEL, *args), refusal, off)


def shell(script: str, refusal: str, off: Change) -> Attack:
    return Attack(("/bin/sh", "-c", f"({script}) 2>&1"), refusal, off)


def rewrite(path: str) -> str:
    """Write what is there already: as telling as any other value, and harmless."""
    return f'value=$(cat {path}); echo "$value" > {path} && echo won'


READ_ONLY = "Read-only file system"
CORE_PATTERN = "/proc/sys/kernel/core_pattern"
HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan"
SYS_ADMIN = weaker.every(weaker.no_filter, weaker.capability("SYS_ADMIN"))
ATTACKS = {
    "proc-sys": shell(rewrite("/proc/sys/kernel/panic"), READ_ONLY, weaker.writable("/proc/sys")),
    "core-pattern": shell(rewrite(CORE_PATTERN), READ_ONLY, weaker.writable("/proc/sys")),
    "interrupts": shell(rewrite("/proc/irq/default_smp_affinity"), READ_ONLY, weaker.writable("/proc/irq")),
    "sysfs": shell(rewrite(HUGE_PAGES), READ_ONLY, weaker.writable_mount("/sys")),
    "timers-and-keys": shell(
        'test -n "$(cat /proc/keys)" && echo won || echo lost: nothing there',
        "nothing there",
        weaker.unmasked("/proc/keys"),
    ),
    "mount": kernel("mount", "/tmp", "tmpfs", off=SYS_ADMIN),
    "mount-proc-anew": kernel("mount", "/tmp", "proc", off=SYS_ADMIN),
    "remount": kernel("remount", "/proc/sys", off=SYS_ADMIN),
    "open-tree": kernel("open-tree", off=SYS_ADMIN),
    "user-namespace": kernel("unshare"),
    "user-namespace-by-clone": kernel("clone", refusal="Function not implemented"),
    "user-namespace-by-clone3": kernel("clone3", refusal="Function not implemented"),
    "bpf": kernel("bpf", off=SYS_ADMIN),
    "perf": kernel("perf", off=SYS_ADMIN),
    "io-uring": kernel("io-uring"),
    "userfaultfd": kernel("userfaultfd", off=weaker.every(weaker.no_filter, weaker.capability("SYS_PTRACE"))),
    "vsock": kernel("socket", "40", "1", refusal="Function not implemented"),
    "kernel-log": kernel("syslog", off=weaker.every(weaker.no_filter, weaker.capability("SYSLOG"))),
    "setns": kernel("setns", "/proc/1/ns/mnt", off=SYS_ADMIN),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_kernel_refuses(prisoner: Prisoner, name: str) -> None:
    attack = ATTACKS[name]

    seen = prisoner.attack(*attack.args)

    assert not seen.won, seen
    assert attack.refusal in seen.text


@pytest.mark.parametrize("name", ATTACKS)
def test_the_kernel_gives_in_without_the_defence(prisoner: Prisoner, name: str) -> None:
    attack = ATTACKS[name]

    seen = prisoner.attack_without(attack.off, *attack.args)

    assert seen.won, seen

"""What belongs to other containers and to the host: processes, secrets, devices, files."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.attack import weaker
from tests.attack.prison import Prison, Prisoner

from skep.model.host import ContainerFile

pytestmark = pytest.mark.root
KERNEL = "/attack/kernel"
SECRET = "the neighbour's secret"


@pytest.fixture(scope="module")
def neighbour(prison: Prison) -> Prisoner:
    """Another tenant's container, with a secret in its environment and one in a file."""
    digest = prison.hive.desired.add(SECRET.encode())
    return prison.admit(
        environment={"TOKEN": SECRET},
        files=(ContainerFile(target="/run/secrets/key", digest=digest, secret=True, mode=0o400),),
    )


def find(what: str) -> tuple[str, ...]:
    """Look for the secret below /proc, wherever the container can see."""
    script = f'grep -qs "{SECRET}" {what} && echo won || echo lost: nowhere'
    return ("/bin/sh", "-c", script)


OTHERS = {
    "environment": find("/proc/[0-9]*/environ"),
    "root": find("/proc/[0-9]*/root/run/secrets/key"),
}


@pytest.mark.parametrize("way", OTHERS)
def test_other_processes_are_not_there(prisoner: Prisoner, neighbour: Prisoner, way: str) -> None:
    assert prisoner.attack(*OTHERS[way]).lost == "nowhere"


@pytest.mark.parametrize("way", OTHERS)
def test_other_processes_tell_all_in_the_machines_process_namespace(
    prisoner: Prisoner, neighbour: Prisoner, way: str
) -> None:
    assert prisoner.attack_without(weaker.shared("pid"), *OTHERS[way]).won


TAKEN_OVER = ("ptrace", "memory")


@pytest.mark.parametrize("how", TAKEN_OVER)
def test_another_process_cannot_be_taken_over(prisoner: Prisoner, neighbour: Prisoner, how: str) -> None:
    seen = prisoner.attack(KERNEL, how, str(neighbour.pid))

    assert seen.lost in ("No such process", "No such file or directory"), seen


@pytest.mark.parametrize("how", TAKEN_OVER)
def test_another_process_is_taken_over_in_the_machines_process_namespace(
    prisoner: Prisoner, neighbour: Prisoner, how: str
) -> None:
    assert prisoner.attack_without(weaker.shared("pid"), KERNEL, how, str(neighbour.pid)).won


@pytest.fixture
def segment() -> Iterator[str]:
    """Shared memory of a program of the host (shmget(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.shmget(0x736B6570, 4096, 0o1666)
    assert made >= 0
    yield str(0x736B6570)
    libc.shmctl(made, 0, None)  # IPC_RMID


def test_shared_memory_of_the_host_is_not_there(prisoner: Prisoner, segment: str) -> None:
    assert prisoner.attack(KERNEL, "segment", segment).lost == "No such file or directory"


def test_shared_memory_of_the_host_is_there_in_its_namespace(prisoner: Prisoner, segment: str) -> None:
    assert prisoner.attack_without(weaker.shared("ipc"), KERNEL, "segment", segment).won


@pytest.fixture
def key() -> Iterator[str]:
    """A key in the keyring of the machine's root, as programs of the host keep them."""
    name = "skep-test-attack"
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    made = syscall(248, b"user", name.encode(), b"secret", 6, ctypes.c_int(-4))  # add_key, @u
    assert made > 0
    assert syscall(250, 5, made, 0x3F3F0000) == 0  # keyctl(KEYCTL_SETPERM): its owner and who holds it
    yield name
    syscall(250, 9, made, ctypes.c_int(-4), 0, 0)  # keyctl(KEYCTL_UNLINK)


def test_keys_of_the_host_cannot_be_read(prisoner: Prisoner, key: str) -> None:
    assert prisoner.attack(KERNEL, "keyring", key).lost == "Operation not permitted"


def test_keys_of_the_host_can_be_read_without_the_filter(prisoner: Prisoner, key: str) -> None:
    assert prisoner.attack_without(weaker.no_filter, KERNEL, "keyring", key).won


@pytest.fixture
def listening(prison: Prison) -> Iterator[str]:
    """A program of the host that listens on an abstract socket, as D-Bus and containerd have done."""
    name = f"{prison.base.name}-abstract"

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(f"\0{name}")
        made.listen()
        return made

    with prison.inside(prison.host, listen):
        yield name


def test_abstract_sockets_of_the_host_are_not_there(prisoner: Prisoner, listening: str) -> None:
    assert prisoner.attack(KERNEL, "abstract", listening).lost == "Connection refused"


def test_abstract_sockets_of_the_host_are_there_in_its_network(
    prison: Prison, prisoner: Prisoner, listening: str
) -> None:
    assert prisoner.attack_without(weaker.network(prison.host), KERNEL, "abstract", listening).won


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A block device of the host with something on it."""
    image = tmp_path / "disk.img"
    image.write_bytes(SECRET.encode().ljust(1024 * 1024, b"\0"))
    device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
    yield device.stdout.strip()
    subprocess.run(["losetup", "-d", device.stdout.strip()], check=True)


def read_disk(device: str) -> tuple[str, ...]:
    number = Path(device).stat().st_rdev
    node = f"/tmp/disk-{os.minor(number)}"
    script = (
        f"rm -f {node}; mknod {node} b {os.major(number)} {os.minor(number)} && "
        f'grep -qs "{SECRET}" {node} && echo won || echo lost: $(head -c 1 {node} 2>&1)'
    )
    return ("/bin/sh", "-c", script)


def test_a_disk_of_the_host_cannot_be_read_through_a_node_of_ones_own(prisoner: Prisoner, disk: str) -> None:
    assert "Operation not permitted" in prisoner.attack(*read_disk(disk)).lost


def test_a_disk_of_the_host_can_be_read_where_the_control_group_allows_it(
    prisoner: Prisoner, disk: str
) -> None:
    number = Path(disk).stat().st_rdev
    allowed = weaker.device("b", os.major(number), os.minor(number))

    assert prisoner.attack_without(allowed, *read_disk(disk)).won


def handle_of(path: Path) -> tuple[str, str]:
    """Type and bytes of the file's handle (name_to_handle_at(2))."""
    buffer = ctypes.create_string_buffer(136)
    ctypes.memmove(buffer, (128).to_bytes(4, "little"), 4)
    mount = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(mount), 0) == 0
    length = int.from_bytes(buffer.raw[:4], "little")
    return str(int.from_bytes(buffer.raw[4:8], "little")), buffer.raw[8 : 8 + length].hex()


def stolen_disk(prison: Prison, neighbour: Prisoner) -> tuple[str, Path]:
    """A file of the host that lies on the file system of /etc/hosts."""
    stolen = prison.hive.disks.folder / "of-the-host"
    stolen.write_text(SECRET)
    return "/etc/hosts", stolen


def stolen_secret(prison: Prison, neighbour: Prisoner) -> tuple[str, Path]:
    """The neighbour's secret, which lies in memory beside that of the prisoner."""
    return "/run/secrets/own", prison.hive.run / "secrets" / neighbour.id / "0"


HANDLES = {"file-of-a-disk": stolen_disk, "secret-of-another": stolen_secret}


@pytest.fixture(scope="module")
def owner(prison: Prison) -> Prisoner:
    """A prisoner with a secret of its own."""
    own = ContainerFile(target="/run/secrets/own", digest=prison.hive.desired.add(b"own"), secret=True)
    return prison.admit(files=(own,))


@pytest.mark.parametrize("what", HANDLES)
def test_files_beyond_a_mount_cannot_be_opened_by_handle(
    prison: Prison, owner: Prisoner, neighbour: Prisoner, what: str
) -> None:
    """ "shocker": a handle names a file of the whole file system, whatever is mounted of it."""
    beside, stolen = HANDLES[what](prison, neighbour)

    assert owner.attack(KERNEL, "by-handle", beside, *handle_of(stolen)).lost == "Operation not permitted"


@pytest.mark.parametrize("what", HANDLES)
def test_files_beyond_a_mount_can_be_opened_with_the_capability(
    prison: Prison, owner: Prisoner, neighbour: Prisoner, what: str
) -> None:
    off = weaker.every(weaker.no_filter, weaker.capability("DAC_READ_SEARCH"))
    beside, stolen = HANDLES[what](prison, neighbour)

    seen = owner.attack_without(off, KERNEL, "by-handle", beside, *handle_of(stolen))

    assert SECRET in seen.text


def setuid(prison: Prison) -> tuple[str, ...]:
    """A program of the image that becomes root, whoever starts it."""
    program = prison.hive.busybox / "attack" / "kernel-as-root"
    if not program.exists():
        program.write_bytes((prison.hive.busybox / "attack" / "kernel").read_bytes())
        program.chmod(0o4755)
    return (f"/attack/{program.name}", "setuid")


def test_a_setuid_program_of_the_image_gives_nothing(prison: Prison, prisoner: Prisoner) -> None:
    assert prisoner.attack(*setuid(prison), user="worker").lost == "Operation not permitted"


def test_a_setuid_program_makes_root_where_new_privileges_are_allowed(
    prison: Prison, prisoner: Prisoner
) -> None:
    off = weaker.every(weaker.user(1234), weaker.new_privileges)

    assert prisoner.attack_without(off, *setuid(prison)).won


AGENT = """
mkdir -p /tmp/hierarchy && mount -t cgroup -o none,name={name} x /tmp/hierarchy || exit 1
mkdir -p /tmp/hierarchy/cell && echo 1 > /tmp/hierarchy/cell/notify_on_release
printf '#!/bin/sh\\necho won > {rootfs}/tmp/by-the-host\\n' > /tmp/helper && chmod +x /tmp/helper
echo {rootfs}/tmp/helper > /tmp/hierarchy/release_agent
sh -c 'echo $$ > /tmp/hierarchy/cell/cgroup.procs' && sleep 0.3
cat /tmp/by-the-host
rmdir /tmp/hierarchy/cell; umount /tmp/hierarchy
"""


def release_agent(prison: Prison, prisoner: Prisoner) -> tuple[str, ...]:
    """Let the kernel run a program as root of the machine when a group becomes empty."""
    script = AGENT.format(name=prison.base.name, rootfs=prisoner.rootfs)
    return ("/bin/sh", "-c", f"({script}) 2>&1")


def test_no_release_agent_can_be_set(prison: Prison, prisoner: Prisoner) -> None:
    seen = prisoner.attack(*release_agent(prison, prisoner))

    assert not seen.won
    assert "permission denied" in seen.text
    groups = prisoner.shell(
        "for group in /sys/fs/cgroup/*/; do echo /x > $group/release_agent && echo won; "
        "echo 1 > $group/notify_on_release && echo won; mkdir $group/x && echo won; done"
    )
    assert not groups.won
    assert "Read-only file system" in groups.text


def test_a_release_agent_runs_as_root_of_the_host_where_it_can_be_set(
    prison: Prison, prisoner: Prisoner
) -> None:
    off = weaker.every(weaker.no_filter, weaker.capability("SYS_ADMIN"), weaker.shared("cgroup"))

    assert prisoner.attack_without(off, *release_agent(prison, prisoner)).won

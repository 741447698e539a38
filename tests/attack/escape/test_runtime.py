"""Against what makes containers and enters them: the runtime's program, its descriptors, its mounts."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.attack.prison import Config, Prison, Prisoner

from skep.model.errors import SkepError
from skep.model.host import ContainerMount
from skep.model.ids import DiskId, new_id

pytestmark = pytest.mark.root
RUNTIME = "/attack/runtime"
DESCRIPTORS = tuple(range(3, 14))


def test_the_runtimes_program_cannot_be_overwritten(prison: Prison, prisoner: Prisoner) -> None:
    """CVE-2019-5736: a program of the image is a script whose interpreter is the runtime itself."""
    binary = prison.hive.runtime.binary
    before = hashlib.sha256(binary.read_bytes()).digest()
    prisoner.shell("printf '#!/proc/self/exe\\n' > /bin/trap; chmod +x /bin/trap")

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(prisoner.attack, RUNTIME, "overwrite", "runc", "1.5")
        while not waiting.done():
            prisoner.attack("/bin/trap")

    assert not waiting.result().won
    assert hashlib.sha256(binary.read_bytes()).digest() == before


def test_a_program_that_enters_as_itself_is_overwritten(prison: Prison, prisoner: Prisoner) -> None:
    visitor = prison.base / "visitor"
    shutil.copy(prison.hive.busybox / "attack" / "runtime", visitor)

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(prisoner.attack, RUNTIME, "overwrite", "visitor", "3")
        while not waiting.done() and b"overwritten" not in visitor.read_bytes()[:20]:
            subprocess.run([visitor, "visit", str(prisoner.pid)], check=False, timeout=10)

    assert waiting.result().won, waiting.result()
    assert visitor.read_bytes().startswith(b"overwritten")


@pytest.fixture
def leaked(prison: Prison) -> Iterator[Path]:
    """A folder of the host that this process has open, for whatever it starts."""
    folder = prison.base / "of-the-host"
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_text("of the host\n")
    descriptor = os.open(folder, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    yield folder
    os.close(descriptor)


LOOK = ("/bin/sh", "-c", "for n in $(seq 3 20); do grep -qs host /proc/self/fd/$n/secret && echo won; done")


def test_no_descriptor_of_the_host_comes_along(prison: Prison, prisoner: Prisoner, leaked: Path) -> None:
    by_exec = prisoner.attack(*LOOK)
    listed = prisoner.shell("ls /proc/1/fd").text.split()

    assert not by_exec.won
    assert listed == ["0", "1", "2"]


def test_a_descriptor_that_comes_along_leads_out(prison: Prison, prisoner: Prisoner, leaked: Path) -> None:
    config = prisoner.config()
    config["process"]["args"] = list(LOOK)

    assert prison.run_twin(config, leak=leaked).won


@pytest.mark.parametrize("how", ["plainly", "through-a-link"])
def test_the_runtimes_own_descriptors_are_no_working_directory(prisoner: Prisoner, how: str) -> None:
    """CVE-2024-21626: a descriptor of the host that the runtime still has open while it enters."""
    for number in DESCRIPTORS:
        place = f"/proc/self/fd/{number}"
        if how == "through-a-link":
            prisoner.shell(f"ln -sfn {place} /here")
            place = "/here"
        seen = prisoner.attack(
            "/bin/sh", "-c", "ls ../../../../../../../etc/shadow && echo won", working_dir=place
        )
        assert not seen.won
        assert seen.code in (126, 127), seen


def test_no_container_starts_in_a_descriptor(prison: Prison) -> None:
    for number in DESCRIPTORS[3:7]:
        with pytest.raises(SkepError):
            prison.admit(working_dir=f"/proc/self/fd/{number}")


def masked(prison: Prison) -> Prisoner:
    """A volume that lies where the image has a link to /dev, and that brings a `null` of its own.

    The runtime hides files of the kernel behind /dev/null: what would it take for that? (CVE-2025-31133)
    """
    disk = DiskId(new_id())
    (prison.wait(prison.hive.disks.path(disk)) / "null").symlink_to("/proc/version")
    layer = prison.hive.layer()
    (layer / "data").symlink_to("/dev")
    image = prison.hive.images.add(prison.hive.busybox, layer)
    return prison.admit(image=image, mounts=(ContainerMount(target="/data", disk=disk),))


LOOK_BEHIND = ("/bin/sh", "-c", "head -c 5 /proc/keys > /tmp/behind")


def test_a_volume_does_not_become_what_hides_the_kernels_files(prison: Prison) -> None:
    prisoner = masked(prison)

    prisoner.attack(*LOOK_BEHIND)
    seen = prisoner.shell("cat /tmp/behind")
    prison.dismiss(prisoner)

    assert seen.text == ""


def test_a_volume_becomes_it_where_it_is_mounted_after_the_engines_own(prison: Prison) -> None:
    """The hidden file is then another one, of the tenant's choice."""
    prisoner = masked(prison)

    def late(config: Config) -> None:
        (volume,) = [mount for mount in config["mounts"] if mount["destination"] == "/data"]
        config["mounts"].remove(volume)
        config["mounts"].append(volume)

    prisoner.attack_without(late, *LOOK_BEHIND)
    seen = prisoner.shell("cat /tmp/behind")
    prison.dismiss(prisoner)

    assert seen.text == "Linux"

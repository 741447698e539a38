"""What porters run, run here: in folders of this machine, as they run it in a claim."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lightkube.resources.core_v1 import Pod
from tests.contracts.trees import members, tree

from skep.model.errors import Exhausted, HostFailure
from skep.model.ids import DiskId, TenantId
from skep.model.needs import BASELINE
from skep.providers.kubernetes.disks.porter_image import root_of
from skep.providers.kubernetes.disks.porters import (
    FINGERPRINT,
    KEEP,
    PROGRAMS,
    SEND,
    TAKE,
    UNKNOWN,
    frame,
    node_of,
    porter,
)
from skep.providers.kubernetes.manifests import TenantNamespace
from skep.providers.local.disk_tars import must_have_ended_well

pytestmark = pytest.mark.root

OF = TenantNamespace("i1", TenantId("t1"))
DISK = DiskId("d1")
OLD, NEW = tree(file=b"old"), tree(file=b"new")


class Claim:
    def __init__(self, volume: Path, scratch: Path) -> None:
        self.volume = volume
        self.scratch = scratch
        self.name = "disk-d1"
        scratch.mkdir()

    def run(self, script: str, given: bytes = b"", seal: str = "") -> bytes:
        """Raises as control hears of it."""
        words = ["/bin/sh", "-c", script, "sh", str(self.volume), str(self.scratch), seal, self.name]
        done = subprocess.run(words, input=given, capture_output=True, check=False)
        must_have_ended_well(done.returncode, done.stderr.decode())
        return done.stdout

    def take(self, content: bytes, onto: str = "") -> str:
        """It arrives; whether it is kept, is another question.  Answers its seal."""
        frames = frame(content[:1000]) + frame(content[1000:]) + frame(b"")
        return self.run(TAKE, frames, onto).decode()

    def held(self) -> object:
        return members(self.run(SEND)[:-64])


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    """It holds OLD, beside what every new ext4 has."""
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)
    made = Claim(tmp_path / "volume", tmp_path / "scratch")
    made.take(OLD)
    made.run(KEEP)
    return made


def test_what_arrived_whole_replaces_what_was_there(claim: Claim) -> None:
    claim.take(NEW)

    claim.run(KEEP, seal="ab")
    claim.run(KEEP, seal="ab")

    assert {one.name for one in claim.volume.iterdir()} == {"data", "lost+found", "arrived-disk-d1-ab"}
    assert claim.held() == members(NEW)


def test_an_empty_claim_is_sent_as_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir(mode=0o777)
    (tmp_path / "volume").chmod(0o777)

    found = Claim(tmp_path / "volume", tmp_path / "scratch").held()

    assert list(found) == ["."]  # type: ignore[call-overload]
    assert (tmp_path / "volume" / "data").stat().st_mode & 0o777 == 0o777


def test_what_nobody_kept_is_forgotten(claim: Claim) -> None:
    claim.take(NEW)

    assert claim.held() == members(OLD)


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_kept_is_there_for_whoever_comes_next_wherever_a_porter_was_killed(
    claim: Claim, moved: bool
) -> None:
    claim.take(NEW)
    (claim.volume / "arriving").rename(claim.volume / "ready")
    if moved:
        (claim.volume / "data").rename(claim.volume / "old")

    assert claim.held() == members(NEW)
    assert {"old", "ready", "arriving"}.isdisjoint(one.name for one in claim.volume.iterdir())


def test_changes_follow_and_until_they_are_kept_nothing_is_touched(claim: Claim, tmp_path: Path) -> None:
    other = Claim(tmp_path / "other", tmp_path / "beside")
    other.volume.mkdir()
    sent = claim.run(SEND)
    other.run(KEEP, seal=other.take(sent[:-64]))
    data = claim.volume / "data"
    (data / "file").unlink()
    (data / "deep").rename(data / "deeper")
    (data / "marked").chmod(0o600)
    (data / "added").write_bytes(b"a")

    changes = claim.run(SEND, seal=sent[-64:].decode())
    seal = other.take(changes[:-64], onto=sent[-64:].decode())

    assert other.held() == members(OLD)
    other.take(changes[:-64], onto=sent[-64:].decode())
    other.run(KEEP, seal=seal)
    assert other.held() == claim.held()
    assert other.run(FINGERPRINT) == claim.run(FINGERPRINT)
    assert claim.run(SEND, seal=claim.run(SEND)[-64:].decode()) != sent


def test_changes_since_or_onto_another_copy_are_no_success(claim: Claim) -> None:
    seal = claim.run(SEND)[-64:].decode()

    for script, given in ((SEND, b""), (TAKE, frame(b""))):
        with pytest.raises(HostFailure, match=f"failed with {UNKNOWN}"):
            claim.run(script, given, seal[::-1])
    claim.run(KEEP, seal="ab")
    with pytest.raises(HostFailure, match=f"failed with {UNKNOWN}"):
        claim.run(SEND, seal=seal)

    assert claim.held() == members(OLD)


def test_what_breaks_off_is_no_success(claim: Claim) -> None:
    with pytest.raises(Exception, match="tar failed"):
        claim.run(TAKE, frame(NEW[:5000]))

    assert claim.held() == members(OLD)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    volume = tmp_path / "small"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", volume], check=True)
    yield volume
    subprocess.run(["umount", volume], check=True)


def test_a_claim_that_is_too_small_keeps_what_it_has(small: Path, tmp_path: Path) -> None:
    claim = Claim(small, tmp_path / "scratch")
    claim.take(OLD)
    claim.run(KEEP)

    with pytest.raises(Exhausted):
        claim.take(tree(large=bytes(range(256)) * 8192))

    assert claim.held() == members(OLD)


def test_a_claim_that_is_full_is_sent_all_the_same(small: Path, tmp_path: Path) -> None:
    claim = Claim(small, tmp_path / "scratch")
    (small / "data").mkdir()
    with suppress(OSError), (small / "data" / "fills").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass

    assert set(claim.held()) == {".", "fills"}  # type: ignore[call-overload]
    assert {one.name for one in small.iterdir() if one.stat().st_size} == {"data"}


def test_a_porter_asks_for_no_more_than_namespaces_of_tenants_give() -> None:
    made = porter(OF, DISK, "disk-d1", "registry/porter")

    (container,) = made["spec"]["containers"]
    assert set(container["securityContext"]["capabilities"]["add"]) <= BASELINE
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert "affinity" not in made["spec"]


def test_a_porter_goes_where_the_claim_is_mounted_already() -> None:
    made = porter(OF, DISK, "disk-d1", "image")
    using: Any = Pod.from_dict(made | {"spec": made["spec"] | {"nodeName": "node-7"}})

    assert node_of([using], "disk-d1") == "node-7"
    assert node_of([using], "disk-d2") == ""


def test_a_porter_that_nobody_holds_to_a_node_prefers_where_the_volume_of_before_is() -> None:
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}

    made = porter(OF, DISK, "disk-d1-1", "image", near=[term])

    wanted = made["spec"]["affinity"]["nodeAffinity"]
    assert wanted == {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]
    }


async def test_the_image_has_each_program_with_its_libraries_and_is_always_the_same() -> None:
    root = await root_of(PROGRAMS)

    names = members(root)
    assert {f"bin/{name}" for name in PROGRAMS} <= names.keys()
    assert any(name.endswith("/libc.so.6") for name in names)
    assert await root_of(PROGRAMS) == root

"""Archives become directories, hostile ones nothing."""

import gzip
import hashlib
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard
from tests.providers.images.conftest import Layer, entry

from skep.model.errors import InvalidInput
from skep.model.ids import Bytes
from skep.providers.local.images.layers import UnpackLimits, unpack_archive
from skep.providers.local.images.store import load_context

pytestmark = pytest.mark.root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


async def unpack(archive: Path, target: Path, limits: UnpackLimits | None = None) -> None:
    await unpack_archive(archive, target, "layer", limits or UnpackLimits())


async def test_whiteouts_become_what_overlayfs_hides_by(tar_of: Layer, target: Path, tmp_path: Path) -> None:
    layer = tar_of(
        entry("gone/", tarfile.DIRTYPE, mode=0o755), entry("gone/.wh.file"), entry("gone/.wh..wh.plnk"),
        entry("fresh/", tarfile.DIRTYPE, mode=0o755), entry("fresh/.wh..wh..opq"),
        (entry("fresh/new"), b"new"),
    )  # fmt: skip

    await unpack(layer, target)

    facts = (target / "gone/file").lstat()
    assert stat.S_ISCHR(facts.st_mode)
    assert facts.st_rdev == 0
    assert os.getxattr(target / "fresh", "trusted.overlay.opaque") == b"y"
    assert sorted(path.name for path in (target / "gone").iterdir()) == ["file"]
    assert (target / "fresh/new").read_text() == "new"


async def test_owners_modes_times_links_and_capabilities_are_kept(tar_of: Layer, target: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    program = entry(
        "bin/tool",
        mode=0o4755,
        attributes={"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")},
    )
    program.uid, program.gid, program.mtime = 1000, 1001, 1_600_000_000
    folder = entry("bin/", tarfile.DIRTYPE, mode=0o1777)
    folder.mtime = 1_500_000_000
    layer = tar_of(
        folder, (program, b"x"), entry("bin/hard", tarfile.LNKTYPE, link="bin/tool"),
        entry("bin/soft", tarfile.SYMTYPE, link="/bin/tool"), entry("pipe", tarfile.FIFOTYPE),
    )  # fmt: skip

    await unpack(layer, target)

    facts = (target / "bin/tool").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mtime) == (1000, 1001, 1_600_000_000)
    assert stat.S_IMODE(facts.st_mode) == 0o4755
    assert facts.st_nlink == 2
    assert os.getxattr(target / "bin/tool", "security.capability") == capability
    assert str((target / "bin/soft").readlink()) == "/bin/tool"
    assert stat.S_IMODE((target / "bin").stat().st_mode) == 0o1777
    assert (target / "bin").stat().st_mtime == 1_500_000_000


async def test_names_and_links_that_lead_out_stay_inside(tar_of: Layer, target: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    layer = tar_of(
        (entry("../../../../../../escaped-by-dots"), b"x"),
        (entry("/escaped-absolutely"), b"x"),
        entry("way", tarfile.SYMTYPE, link=str(victim)), (entry("way/through-link"), b"x"),
        entry("up", tarfile.SYMTYPE, link="../../../.."), (entry("up/through-dots"), b"x"),
        name="hostile.tar",
    )  # fmt: skip

    with pytest.raises(InvalidInput):  # the absolute link has no target inside
        await unpack(layer, target)

    assert list(victim.iterdir()) == []
    assert not Path("/escaped-by-dots").exists()
    assert not Path("/through-dots").exists()
    assert (target / "escaped-by-dots").exists()


async def test_a_hard_link_to_a_file_of_the_host_is_refused(tar_of: Layer, target: Path) -> None:
    with pytest.raises(InvalidInput, match="not there"):
        await unpack(tar_of(entry("shadow", tarfile.LNKTYPE, link="/etc/shadow")), target)


async def test_devices_of_the_host_are_left_out(tar_of: Layer, target: Path) -> None:
    disk = entry("sda", tarfile.BLKTYPE)
    memory, null = entry("mem", tarfile.CHRTYPE), entry("null", tarfile.CHRTYPE)
    disk.devmajor, memory.devmajor, memory.devminor, null.devmajor, null.devminor = 8, 1, 1, 1, 3

    await unpack(tar_of(disk, memory, null), target)

    assert [path.name for path in target.iterdir()] == ["null"]


async def test_attributes_that_steer_overlayfs_are_not_taken_from_images(tar_of: Layer, target: Path) -> None:
    folder = entry(
        "d/", tarfile.DIRTYPE, mode=0o755, attributes={"SCHILY.xattr.trusted.overlay.redirect": "/other"}
    )

    await unpack(tar_of(folder), target)

    assert os.listxattr(target / "d") == []


async def test_later_entries_replace_earlier_ones(tar_of: Layer, target: Path) -> None:
    layer = tar_of(
        (entry("a"), b"1"), (entry("a"), b"2"),
        entry("d/", tarfile.DIRTYPE, mode=0o755), (entry("d/x"), b"x"), (entry("d"), b"now a file"),
        entry("l", tarfile.SYMTYPE, link="a"), entry("l/", tarfile.DIRTYPE, mode=0o755), (entry("l/x"), b"x"),
    )  # fmt: skip

    await unpack(layer, target)

    assert (target / "a").read_text() == "2"
    assert (target / "d").read_text() == "now a file"
    assert (target / "l" / "x").read_text() == "x"


async def test_a_bomb_is_stopped(tmp_path: Path, tar_of: Layer, target: Path) -> None:
    bomb = tar_of((entry("zeros"), bytes(8 * 1024 * 1024)), name="bomb.tar.gz", mode="w:gz")

    with pytest.raises(InvalidInput, match="more than the limit"):
        await unpack(bomb, target, UnpackLimits(bytes=Bytes(1024 * 1024), entries=100))


async def test_too_many_entries_are_refused(tar_of: Layer, target: Path) -> None:
    with pytest.raises(InvalidInput, match="more than 10 entries"):
        await unpack(tar_of(*[entry(str(n)) for n in range(11)]), target, UnpackLimits(entries=10))


@pytest.mark.parametrize("cut", [0.3, 0.9])
async def test_a_truncated_archive_is_refused(tar_of: Layer, target: Path, cut: float) -> None:
    archive = tar_of((entry("file"), os.urandom(100_000)), name="cut.tar.gz", mode="w:gz")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * cut)])

    with pytest.raises(InvalidInput):
        await unpack(archive, target)


async def test_gzip_of_several_members_and_zstd_are_read(tar_of: Layer, tmp_path: Path) -> None:
    plain = tar_of((entry("file"), os.urandom(3_000_000))).read_bytes()
    half = len(plain) // 2
    pieces = {
        "members.tar.gz": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        "frames.tar.zst": zstandard.compress(plain[:half]) + zstandard.compress(plain[half:]),
    }

    for name, data in pieces.items():
        (tmp_path / name).write_bytes(data)
        folder = tmp_path / f"to-{name}"
        folder.mkdir()
        result = await unpack_archive(tmp_path / name, folder, "layer", UnpackLimits())
        assert result.diff_id == "sha256:" + hashlib.sha256(plain).hexdigest()
        assert (folder / "file").stat().st_size == 3_000_000


async def test_a_context_has_files_folders_and_links_only(tar_of: Layer, target: Path) -> None:
    device = entry("null", tarfile.CHRTYPE)
    device.devmajor, device.devminor = 1, 3
    owned = entry("run.sh", mode=0o4755)
    owned.uid = 1234

    await load_context(tar_of(device, entry("pipe", tarfile.FIFOTYPE), (owned, b"#!/bin/sh")), target)

    assert [path.name for path in target.iterdir()] == ["run.sh"]
    facts = (target / "run.sh").stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o755)


async def test_something_else_than_a_tar_is_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "text").write_text("this is no archive " * 100)

    with pytest.raises(InvalidInput):
        await unpack(tmp_path / "text", target)


def test_an_archive_cannot_bring_code_for_the_unpacker(target: Path, tmp_path: Path) -> None:
    archive = tmp_path / "empty.tar"
    tarfile.open(archive, "w").close()
    job = {"archive": str(archive), "target": str(target), "max_bytes": 1, "max_entries": 9}
    script = (
        "import msgspec, sys\n"
        "from skep.providers.local.images.unpacker import Job, unpack\n"
        "sys.path.insert(0, '/')\n"
        f"unpack(msgspec.convert({job!r}, Job))\n"
        "import hostile\n"
    )
    (target / "hostile.py").write_text("print('hostile')")

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.stdout == ""
    assert "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr, done.stderr

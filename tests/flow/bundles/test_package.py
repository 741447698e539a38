"""A bundle as bytes: the same for the same files, and nothing in it that leads out of it."""

import io
import os
import tarfile
import time
from pathlib import Path

import pytest
import zstandard
from tests.flow.bundles import samples

from skep.flow.bundles import package
from skep.flow.bundles.manifest import read_manifest
from skep.flow.bundles.package import Package
from skep.flow.bundles.refusals import BundleRefused


def test_the_hash_depends_on_the_files_and_nothing_else(tmp_path: Path) -> None:
    one = samples.greeting(tmp_path / "one", "1")
    two = samples.greeting(tmp_path / "two", "1")
    os.utime(two / "greet.yaml", (1, time.time() + 1000))
    samples.write(two, {".git/config": "x", "greeting/__pycache__/words.pyc": "x", "greeting/.hidden": "x"})

    first, second = Package.of_directory(one), Package.of_directory(two)

    assert first.hash == second.hash
    assert first.content == second.content


def test_another_letter_or_an_executable_bit_makes_another_hash(tmp_path: Path) -> None:
    directory = samples.greeting(tmp_path, "1")
    before = Package.of_directory(directory).hash
    (directory / "greet.yaml").chmod(0o755)
    executable = Package.of_directory(directory).hash
    (directory / "greet.yaml").write_text("x")

    after = Package.of_directory(directory).hash

    assert len({before, executable, after}) == 3


def test_what_was_packed_comes_out_again(tmp_path: Path) -> None:
    packed = Package.of_directory(samples.greeting(tmp_path / "bundle", "1"))

    unpacked = Package.of_content(packed.content).unpack(tmp_path / "out")

    assert Package.of_directory(unpacked).hash == packed.hash
    assert not (unpacked / "greet.yaml").stat().st_mode & 0o222


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    directory = samples.greeting(tmp_path, "1")
    (directory / "secret").symlink_to("/etc/passwd")

    with pytest.raises(BundleRefused, match="secret is a link that leads out"):
        Package.of_directory(directory)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../evil"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(BundleRefused, match="leads out of the bundle"):
        Package.of_content(_archive(tarfile.TarInfo(name)))


def test_a_link_in_an_archive_is_refused() -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"

    with pytest.raises(BundleRefused, match="not a plain file"):
        Package.of_content(_archive(link))


def test_garbage_is_refused() -> None:
    with pytest.raises(BundleRefused, match="this is no bundle"):
        Package.of_content(b"no archive at all")


def test_a_huge_bundle_is_refused_packed_or_not(tmp_path: Path) -> None:
    directory = samples.greeting(tmp_path, "1")
    with (directory / "big").open("wb") as big:
        big.truncate(package.LARGEST + 1)
    bomb = zstandard.ZstdCompressor().compress(bytes(package.LARGEST * 2))

    with pytest.raises(BundleRefused, match="50 MiB"):
        Package.of_directory(directory)
    with pytest.raises(BundleRefused, match="50 MiB"):
        Package.of_content(bomb)


def test_a_manifest_with_faults_names_each_and_its_line() -> None:
    text = """
bundle: Acme Deploy
version: 1.4
steps: [acme deploy]
process: own
colour: red
rights: {memory: 1KiB, network: maybe, database: true}
"""

    with pytest.raises(BundleRefused) as refused:
        read_manifest(text)

    lines = [reason.split(":")[1] for reason in refused.value.reasons]
    assert sorted(lines) == ["2", "3", "4", "6", "7", "7", "7"]


def _archive(member: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member, io.BytesIO(b""))
    return zstandard.ZstdCompressor().compress(buffer.getvalue())

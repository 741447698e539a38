"""What control may expect of every spool."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.remote import Parts, elsewhere

from skep.control.ports import Spool
from skep.model.errors import InvalidInput, NotFound
from skep.providers.local.spool import FolderSpool


class SpoolContract:
    async def test_a_file_moves_to_the_host_under_its_name(self, spool: Spool, tmp_path: Path) -> None:
        file = tmp_path / "upload-1"
        file.write_bytes(b"archive" * 500_000)

        await spool.take(file)

        assert not file.exists()
        assert (await spool.path("upload-1")).read_bytes() == b"archive" * 500_000
        assert await spool.read("upload-1") == b"archive" * 500_000

    async def test_a_discarded_file_is_gone_and_discarding_it_again_is_success(
        self, spool: Spool, tmp_path: Path
    ) -> None:
        (tmp_path / "upload-1").write_bytes(b"archive")
        await spool.take(tmp_path / "upload-1")

        await spool.discard("upload-1")
        await spool.discard("upload-1")

        for asked in (spool.path("upload-1"), spool.read("upload-1")):
            with pytest.raises(NotFound):
                await asked

    async def test_names_that_lead_elsewhere_are_refused(self, spool: Spool) -> None:
        for name in ("", "..", "../other", "/etc/passwd", ".hidden"):
            with pytest.raises(InvalidInput):
                await spool.path(name)


class TestFolderSpool(SpoolContract):
    @pytest.fixture
    def spool(self, folder: Path) -> Spool:
        return FolderSpool(folder)

    async def test_a_file_that_is_there_already_stays(self, folder: Path) -> None:
        (folder / "upload-1").write_bytes(b"archive")

        await FolderSpool(folder).take(folder / "upload-1")

        assert (folder / "upload-1").read_bytes() == b"archive"


class TestRemoteSpool(SpoolContract):
    @pytest.fixture
    async def spool(self, folder: Path, tmp_path: Path) -> AsyncIterator[Spool]:
        async with elsewhere(Parts(spool=FolderSpool(folder)), tmp_path) as host:
            yield host.spool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder

"""What control may expect of every image store."""

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contracts.remote import Parts, elsewhere
from tests.providers.images.conftest import registry

from skep.control.ports import ImageStore
from skep.model.errors import InvalidInput, NotFound, Unsupported
from skep.model.ids import Digest
from skep.model.images import BuildSpec
from skep.providers.kubernetes.images import ClusterImages
from skep.providers.local.images.repository import Repository
from skep.providers.local.images.store import OciImages
from skep.providers.simulated import SimulatedImages


def archive(path: Path, **files: str) -> Path:
    """A tar of small files; keys are names with `__` for `.`."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return path


async def as_stream(blocks: list[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


class ImageStoreContract:
    async def test_a_root_tar_becomes_an_image_without_a_name(
        self, images: ImageStore, tmp_path: Path
    ) -> None:
        lines: list[str] = []

        found = await images.load(archive(tmp_path / "root.tar", hello="hi"), lines.append)

        (name, info) = next(iter(found.items()))
        assert name == ""
        assert await images.info(info.digest) == info
        assert len(await images.unpack(info.digest)) == len(info.layers) == 1
        assert lines

    async def test_the_same_content_is_the_same_image(self, images: ImageStore, tmp_path: Path) -> None:
        first = await images.load(archive(tmp_path / "one.tar", hello="hi"))
        again = await images.load(archive(tmp_path / "two.tar", hello="hi"))
        other = await images.load(archive(tmp_path / "other.tar", hello="ho"))

        assert first == again
        assert other[""].digest != first[""].digest

    async def test_what_is_no_image_is_refused(self, images: ImageStore, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("no image at all")
        (tmp_path / "folder").mkdir()

        for source in (tmp_path / "text", tmp_path / "folder", tmp_path / "nothing"):
            with pytest.raises(InvalidInput):
                await images.load(source)

    async def test_an_unknown_digest_is_not_found(self, images: ImageStore) -> None:
        nowhere = Digest("sha256:" + "0" * 64)

        for asked in (images.info(nowhere), images.unpack(nowhere)):
            with pytest.raises(NotFound):
                await asked

    async def test_pruning_deletes_all_but_what_is_kept(self, images: ImageStore, tmp_path: Path) -> None:
        kept = (await images.load(archive(tmp_path / "one.tar", hello="hi")))[""]
        gone = (await images.load(archive(tmp_path / "two.tar", hello="ho")))[""]

        freed = await images.prune({kept.digest})

        assert freed > 0
        assert await images.info(kept.digest) == kept
        with pytest.raises(NotFound):
            await images.info(gone.digest)

    async def test_an_image_is_the_same_in_another_store(self, images: ImageStore, tmp_path: Path) -> None:
        info = (await images.load(archive(tmp_path / "one.tar", hello="hi")))[""]
        shipped = [block async for block in images.export(info.digest)]
        await images.prune(set())

        arrived = await images.receive(info.digest, as_stream(shipped))

        assert arrived == info == await images.info(info.digest)
        assert len(await images.unpack(info.digest)) == 1

    async def test_what_is_another_image_or_none_is_not_taken_over(
        self, images: ImageStore, tmp_path: Path
    ) -> None:
        info = (await images.load(archive(tmp_path / "one.tar", hello="hi")))[""]
        shipped = [block async for block in images.export(info.digest)]
        other = Digest("sha256:" + "0" * 64)

        for blocks in (shipped, [b"no image at all" * 100], [b"".join(shipped)[:700]], []):
            with pytest.raises(InvalidInput):
                await images.receive(other, as_stream(blocks))

        with pytest.raises(NotFound):
            await images.info(other)

    async def test_an_image_that_is_not_here_cannot_be_exported(self, images: ImageStore) -> None:
        with pytest.raises(NotFound):
            async for _ in images.export(Digest("sha256:" + "0" * 64)):
                pass

    async def test_a_build_context_is_unpacked_for_as_long_as_it_is_needed(
        self, images: ImageStore, tmp_path: Path
    ) -> None:
        async with images.context(archive(tmp_path / "context.tar", Dockerfile="FROM a")) as context:
            assert (context / "Dockerfile").read_text() == "FROM a"

        assert not context.exists()

    async def test_a_broken_build_context_is_refused(self, images: ImageStore, tmp_path: Path) -> None:
        (tmp_path / "context.tar").write_bytes(b"\0" * 100 + b"not a tar" * 100)

        with pytest.raises(InvalidInput):
            async with images.context(tmp_path / "context.tar"):
                pass

    async def test_bases_are_named_as_the_dockerfile_writes_them(
        self, images: ImageStore, tmp_path: Path
    ) -> None:
        text = "ARG v=1\nFROM base:$v AS one\nFROM scratch\nCOPY --from=one /a /b\nCOPY --from=tool:2 /a /b\n"
        (tmp_path / "Dockerfile").write_text(text)

        assert await images.bases(tmp_path, BuildSpec()) == ["base:1", "tool:2"]

    async def test_a_build_on_a_base_that_is_gone_is_not_found(
        self, images: ImageStore, tmp_path: Path
    ) -> None:
        (tmp_path / "Dockerfile").write_text("FROM base:1\n")
        gone = Digest("sha256:" + "0" * 64)

        with pytest.raises(NotFound):
            await images.build(tmp_path, BuildSpec(bases={"base:1": gone}))

    async def test_a_build_becomes_an_image(self, images: ImageStore, tmp_path: Path) -> None:
        context = tmp_path / "context"
        context.mkdir()
        (context / "hello").write_text("hi")
        build = BuildSpec(dockerfile_inline="FROM scratch\nCOPY hello /hello\n")

        built = await images.build(context, build)

        assert await images.info(built.digest) == built
        assert await images.unpack(built.digest)


class TestSimulatedImages(ImageStoreContract):
    @pytest.fixture
    def images(self) -> SimulatedImages:
        return SimulatedImages()


@pytest.mark.root
class TestOciImages(ImageStoreContract):
    @pytest.fixture
    def images(self, images: OciImages) -> OciImages:
        """As the folder's fixture makes it."""
        return images


@pytest.mark.root
class TestRemoteImages(ImageStoreContract):
    @pytest.fixture
    async def images(self, images: OciImages, tmp_path: Path) -> AsyncIterator[ImageStore]:
        async with elsewhere(Parts(images=images), tmp_path) as host:
            yield host.images


@pytest.mark.root
class TestClusterImages(ImageStoreContract):
    """In a real registry on loopback, as the one that a zone on a cluster names."""

    @pytest.fixture
    async def images(self, tmp_path: Path) -> AsyncIterator[ClusterImages]:
        async with registry(tmp_path / "registry", deletes=True) as host:
            yield ClusterImages(Repository(f"{host}/skep/images"), tmp_path / "scratch")

    async def test_a_build_becomes_an_image(self, images: ImageStore, tmp_path: Path) -> None:
        """Clusters build nothing, and say who does."""
        with pytest.raises(Unsupported, match="skep host add"):
            await images.build(tmp_path, BuildSpec(dockerfile_inline="FROM scratch\n"))

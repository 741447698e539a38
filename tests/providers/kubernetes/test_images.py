"""Images of a zone on a cluster, in real registries on loopback."""

import asyncio
from pathlib import Path

import pytest
from tests.contracts.test_image_stores import archive, as_stream
from tests.providers.images.conftest import PASSWORD, registry

from skep.model.errors import InvalidInput, Unauthenticated, Unavailable
from skep.model.ids import Digest
from skep.model.images import RegistryCredentials
from skep.providers.kubernetes import Clusters
from skep.providers.kubernetes import images as cluster_images
from skep.providers.kubernetes.images import KNOWN_FOR, ClusterImages
from skep.providers.local.images.repository import Repository

pytestmark = pytest.mark.root

LOGIN = RegistryCredentials(username="tester", password=PASSWORD)


async def test_another_process_finds_what_one_has_pushed_and_nothing_stays_on_the_machine(
    tmp_path: Path,
) -> None:
    async with registry(tmp_path / "registry") as host:
        first = ClusterImages(Repository(f"{host}/skep"), tmp_path / "first")
        pushed = (await first.load(archive(tmp_path / "root.tar", hello="hi")))[""]

        assert first.reference(pushed.digest) == f"{host}/skep@{pushed.digest}"
        found = await ClusterImages(Repository(f"{host}/skep"), tmp_path / "second").info(pushed.digest)

    assert found == pushed
    assert list((tmp_path / "first").iterdir()) == []


async def test_what_is_there_may_arrive_again(tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        images = ClusterImages(Repository(f"{host}/skep"), tmp_path / "scratch")
        pushed = (await images.load(archive(tmp_path / "root.tar", hello="hi")))[""]
        shipped = [block async for block in images.export(pushed.digest)]

        assert await images.receive(pushed.digest, as_stream(shipped)) == pushed
        assert await images.receive(pushed.digest, as_stream(shipped)) == pushed


async def test_a_private_registry_is_opened_with_the_zones_credentials(tmp_path: Path) -> None:
    source = archive(tmp_path / "root.tar", hello="hi")
    wrong = RegistryCredentials(username="tester", password="guessed")
    async with registry(tmp_path / "registry", with_password=True) as host:
        for login in (None, wrong):
            refused = ClusterImages(Repository(f"{host}/skep", login), tmp_path / "refused")
            with pytest.raises(Unauthenticated) as caught:
                await refused.load(source)
            assert "guessed" not in caught.value.message

        images = ClusterImages(Repository(f"{host}/skep", LOGIN), tmp_path / "scratch")
        pushed = (await images.load(source))[""]

        assert await images.info(pushed.digest) == pushed
        assert len([block async for block in images.export(pushed.digest)]) > 1


async def test_whether_a_registry_lets_in_is_known_before_anything_is_pushed(tmp_path: Path) -> None:
    wrong = RegistryCredentials(username="tester", password="guessed")
    async with registry(tmp_path / "registry", with_password=True) as host:
        await Clusters().check_registry(f"{host}/skep", LOGIN)
        for login in (None, wrong):
            with pytest.raises(InvalidInput):
                await Clusters().check_registry(f"{host}/skep", login)

    with pytest.raises(Unavailable):
        await Clusters().check_registry(f"{host}/skep", LOGIN)


async def test_a_registry_that_deletes_nothing_keeps_all_and_that_is_no_error(tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        images = ClusterImages(Repository(f"{host}/skep"), tmp_path / "scratch")
        pushed = (await images.load(archive(tmp_path / "root.tar", hello="hi")))[""]

        assert await images.prune(set()) == 0
        assert await images.info(pushed.digest) == pushed


async def test_a_registry_that_is_away_is_not_an_image_that_is_gone(tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        first = ClusterImages(Repository(f"{host}/skep"), tmp_path / "first")
        pushed = (await first.load(archive(tmp_path / "root.tar", hello="hi")))[""]

    with pytest.raises(Unavailable):
        await ClusterImages(Repository(f"{host}/skep"), tmp_path / "second").info(pushed.digest)
    assert await first.info(pushed.digest) == pushed


async def test_many_who_ask_at_the_same_time_ask_the_registry_once_and_later_only_whether_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def counted(self: Repository, digest: Digest, *options: str) -> bytes:
        asked.append(" ".join(options))
        return await inspect(self, digest, *options)

    inspect = Repository._inspect
    monkeypatch.setattr(Repository, "_inspect", counted)
    now = 0.0
    async with registry(tmp_path / "registry") as host:
        source = ClusterImages(Repository(f"{host}/skep"), tmp_path / "source")
        pushed = (await source.load(archive(tmp_path / "root.tar", hello="hi")))[""]
        images = ClusterImages(Repository(f"{host}/skep"), tmp_path / "images", monotonic=lambda: now)
        asked.clear()

        found = await asyncio.gather(*(images.info(pushed.digest) for _ in range(5)))
        at_first = list(asked)
        now += KNOWN_FOR
        later = await images.info(pushed.digest)

    assert found == [pushed] * 5
    assert later == pushed
    assert at_first == ["--raw", "--config --raw"]
    assert asked[len(at_first) :] == ["--raw"]


async def test_a_registry_that_never_answers_keeps_nobody_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(cluster_images, "_ANSWERS", 0.5)
    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        images = ClusterImages(Repository(f"{host}/skep"), tmp_path / "scratch")
        asked = (images.info(Digest(f"sha256:{'0' * 64}")) for _ in range(3))
        errors = await asyncio.gather(*asked, return_exceptions=True)
    await server.wait_closed()

    assert [type(error) for error in errors] == [Unavailable] * 3

"""Images that a host lacks come from a host that has them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from skep.control.host_directory import HostDirectory
from skep.control.image_sources import ImageSources
from skep.model.errors import NotFound, Unavailable
from skep.model.ids import Digest, HostName
from skep.providers.simulated import SimulatedHost, SimulatedImages
from skep.providers.simulated.images import image

IMAGE = image("a" * 64, 1000)
ONE, TWO, THREE = HostName("host-1"), HostName("host-2"), HostName("host-3")


@pytest.fixture
def hosts() -> dict[HostName, SimulatedHost]:
    return {name: SimulatedHost.make() for name in (ONE, TWO, THREE)}


@pytest.fixture
def sources(hosts: dict[HostName, SimulatedHost]) -> ImageSources:
    directory = HostDirectory()
    for name, host in hosts.items():
        directory.add(name, host)
    return ImageSources(directory)


async def test_an_image_is_brought_from_the_host_that_has_it(
    hosts: dict[HostName, SimulatedHost], sources: ImageSources
) -> None:
    hosts[THREE].images.add(IMAGE)

    await sources.ensure(IMAGE.digest, ONE)

    assert await hosts[ONE].images.info(IMAGE.digest) == IMAGE
    with pytest.raises(NotFound):
        await hosts[TWO].images.info(IMAGE.digest)


async def test_a_host_that_was_just_heard_of_elsewhere_is_asked_too(
    hosts: dict[HostName, SimulatedHost],
) -> None:
    directory = HostDirectory()
    directory.add(ONE, hosts[ONE])
    hosts[TWO].images.add(IMAGE)

    async def look() -> None:
        directory.add(TWO, hosts[TWO])

    directory.look_again = look

    await ImageSources(directory).ensure(IMAGE.digest, ONE)

    assert await hosts[ONE].images.info(IMAGE.digest) == IMAGE


async def test_an_image_no_host_has_is_unavailable(sources: ImageSources) -> None:
    with pytest.raises(Unavailable, match="pull or build it again"):
        await sources.ensure(IMAGE.digest, ONE)


async def test_a_source_that_breaks_off_is_not_the_last_one_asked(
    hosts: dict[HostName, SimulatedHost], sources: ImageSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(digest: Digest) -> AsyncIterator[bytes]:
        yield b"the beginning"
        raise Unavailable("The host broke off.")

    for name in (TWO, THREE):
        hosts[name].images.add(IMAGE)
    monkeypatch.setattr(hosts[TWO].images, "export", broken)

    await sources.ensure(IMAGE.digest, ONE)

    assert await hosts[ONE].images.info(IMAGE.digest) == IMAGE


async def test_many_who_need_an_image_at_once_bring_it_once(
    hosts: dict[HostName, SimulatedHost], sources: ImageSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts[TWO].images.add(IMAGE)
    exported: list[Digest] = []
    export = SimulatedImages.export

    def counted(store: SimulatedImages, digest: Digest) -> AsyncIterator[bytes]:
        exported.append(digest)
        return export(store, digest)

    monkeypatch.setattr(SimulatedImages, "export", counted)

    await asyncio.gather(*(sources.ensure(IMAGE.digest, ONE) for _ in range(20)))

    assert exported == [IMAGE.digest]


async def test_an_image_is_exported_by_whichever_host_has_it(
    hosts: dict[HostName, SimulatedHost], sources: ImageSources
) -> None:
    hosts[TWO].images.add(IMAGE)

    blocks = [block async for block in await sources.export(IMAGE.digest)]

    assert blocks == [block async for block in hosts[TWO].images.export(IMAGE.digest)]
    with pytest.raises(Unavailable, match="pull or build it again"):
        await sources.export(image("b" * 64, 1000).digest)

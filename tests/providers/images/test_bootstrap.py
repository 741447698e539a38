"""A Debian base image from packages."""

from pathlib import Path

import pytest

from skep.model.errors import InvalidInput
from skep.providers.local.images.debootstrap import AptSource, read_sources, sources_for
from skep.providers.local.images.store import OciImages

DEB822 = """Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
"""


def test_sources_are_read_in_both_formats() -> None:
    lines = (
        "# deb x y z\ndeb [arch=amd64] http://mirror.example/debian bookworm main contrib\ndeb-src a b c\n"
    )

    assert read_sources(lines) == [
        AptSource(uri="http://mirror.example/debian", suite="bookworm", components=("main", "contrib"))
    ]
    assert [source.suite for source in read_sources(DEB822)] == ["bookworm", "bookworm-updates"]


def test_only_sources_of_the_suite_are_taken() -> None:
    sources = [*read_sources(DEB822), AptSource(uri="http://x", suite="nodistro", components=("main",))]

    assert [source.suite for source in sources_for("bookworm", sources)] == ["bookworm", "bookworm-updates"]
    assert sources_for("trixie", sources) == []


@pytest.mark.root
async def test_a_suite_that_is_a_path_is_refused(images: OciImages) -> None:
    with pytest.raises(InvalidInput):
        await images.bootstrap("../../etc")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_debian_is_bootstrapped_into_an_image(images: OciImages, tmp_path: Path) -> None:
    image = await images.bootstrap("bookworm")

    (layer,) = await images.unpack(image.digest)
    assert image.config.cmd == ("bash",)
    assert "bookworm" in (layer / "etc/apt/sources.list").read_text()
    assert list((layer / "var/cache/apt/archives").glob("*.deb")) == []
    assert (layer / "etc/dpkg/dpkg.cfg.d/image").read_text() == "force-unsafe-io\n"
    assert (layer / "usr/bin/apt-get").exists()
    assert (layer / "etc/machine-id").read_text() == ""

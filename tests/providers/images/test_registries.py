"""Pulling from real registries on loopback."""

import asyncio
from pathlib import Path

import pytest
from tests.providers.images.conftest import HEALTHY, PASSWORD, docker_layout, push, registry, store_at

from skep.model.errors import InvalidInput, NotFound, Unauthenticated, Unavailable
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.providers.local.commands import run
from skep.providers.local.images.skopeo import explain_refusal, full_reference
from skep.providers.local.images.store import OciImages

pytestmark = pytest.mark.root

LOGIN = RegistryCredentials(username="tester", password=PASSWORD)


def inodes(store: Path) -> set[tuple[str, int]]:
    """Blobs of layers with their inodes, which change when a blob is written again."""
    blobs = (store / "blobs" / "sha256").iterdir()
    return {(blob.name, blob.stat().st_ino) for blob in blobs if blob.stat().st_size > 2000}


async def test_an_image_is_pulled_unpacked_and_not_fetched_twice(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    async with registry(tmp_path / "registry") as host, store_at(tmp_path / "other", instance) as other:
        await push(tmp_path / "store", busybox, f"{host}/team/app:1")

        pulled = await other.pull(f"{host}/team/app:1")
        before = inodes(tmp_path / "other")
        again = await other.pull(f"{host}/team/app:1")

        assert pulled == again
        assert pulled.layers == busybox.layers
        assert pulled.config == busybox.config
        layers = await other.unpack(pulled.digest)
        assert (layers[0] / "bin/busybox").stat().st_mode & 0o111
        assert before
        assert before == inodes(tmp_path / "other")


async def test_an_image_in_dockers_format_keeps_its_health_check(
    images: OciImages, busybox: ImageInfo, context: Path, tmp_path: Path, instance: str
) -> None:
    spec = BuildSpec(dockerfile_inline=f"FROM base\n{HEALTHY}\n", bases={"base": busybox.digest})
    image = await images.build(context, spec)
    layout = docker_layout(tmp_path / "store", image, tmp_path / "docker")
    async with registry(tmp_path / "registry") as host, store_at(tmp_path / "other", instance) as other:
        await run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{host}/app:1")
        assert "docker.distribution" in await run(
            "skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{host}/app:1"
        )

        pulled = await other.pull(f"{host}/app:1")
        again = await other.pull(f"{host}/app:1")

        assert pulled == again
        assert pulled.config == image.config
        assert (pulled.config.healthcheck_test, pulled.config.healthcheck_interval) == (
            ("CMD-SHELL", "true"),
            7.0,
        )


async def test_many_pulls_at_once_end_well(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    async with registry(tmp_path / "registry") as host, store_at(tmp_path / "other", instance) as other:
        await push(tmp_path / "store", busybox, f"{host}/app:1")

        pulled = await asyncio.gather(*(other.pull(f"{host}/app:1") for _ in range(6)), other.prune(set()))

        assert len({image.digest for image in pulled[:-1] if isinstance(image, ImageInfo)}) == 1


async def test_credentials_open_a_registry_and_are_never_arguments(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    async with (
        registry(tmp_path / "registry", with_password=True) as host,
        store_at(tmp_path / "other", instance) as other,
    ):
        await push(tmp_path / "store", busybox, f"{host}/app:1", f"tester:{PASSWORD}")

        assert (await other.pull(f"{host}/app:1", LOGIN)).layers == busybox.layers
        with pytest.raises(Unauthenticated, match="wants credentials"):
            await other.pull(f"{host}/app:1")
        with pytest.raises(Unauthenticated, match="refuses these credentials"):
            await other.pull(f"{host}/app:1", RegistryCredentials(username="tester", password="wrong"))
        assert not list(Path("/dev/shm").glob("skep-auth-*"))


async def test_an_image_the_registry_does_not_have_is_not_found(images: OciImages, tmp_path: Path) -> None:
    async with registry(tmp_path / "registry") as host:
        with pytest.raises(NotFound, match="no image"):
            await images.pull(f"{host}/nothing:1")


async def test_a_registry_that_does_not_answer_is_unavailable(images: OciImages) -> None:
    with pytest.raises(Unavailable):
        await images.pull("127.0.0.1:9/app:1")


@pytest.mark.parametrize("reference", ["", "--help", "a b", "docker://x", "../x", "x@sha256:short"])
async def test_what_is_no_reference_is_refused(images: OciImages, reference: str) -> None:
    with pytest.raises((InvalidInput, NotFound, Unavailable)) as refused:
        await images.pull(reference)
    assert isinstance(refused.value, InvalidInput)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1", "docker.io/library/nginx:1"),
        ("me/app", "docker.io/me/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("quay.io/a/b:1@sha256:" + "0" * 64, "quay.io/a/b@sha256:" + "0" * 64),
    ],
)
def test_short_references_are_spelled_out(short: str, full: str) -> None:
    assert full_reference(short) == full


def test_a_registry_of_plain_http_is_a_matter_of_settings_not_of_trying_again() -> None:
    said = 'msg="pinging container registry r:5000: http: server gave HTTP response to HTTPS client"'

    error = explain_refusal("r:5000/skep", said, with_credentials=False)

    assert isinstance(error, InvalidInput)
    assert "insecure_registries" in error.message

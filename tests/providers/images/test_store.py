"""Importing, verifying, sharing and pruning images."""

import asyncio
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from tests.providers.images.conftest import (
    BUSYBOX,
    HEALTHY,
    Layer,
    docker_layout,
    entry,
    store_at,
    write_layout,
)

from skep.model.errors import HostFailure, InvalidInput, NotFound
from skep.model.ids import Digest
from skep.model.images import BuildSpec, ImageInfo
from skep.providers.local.commands import run
from skep.providers.local.images import layers
from skep.providers.local.images.layers import UnpackLimits
from skep.providers.local.images.store import OciImages

pytestmark = pytest.mark.root


async def merged(layers: tuple[Path, ...], place: Path, program: str) -> str:
    """What a shell command sees in the overlay of these layers."""
    place.mkdir()
    lower = ":".join(str(layer) for layer in reversed(layers))
    await run("mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "test", place)
    try:
        return await run("sh", "-c", f"cd {place} && {program}")
    finally:
        await run("umount", place)


def oci_layout(image: ImageInfo, tmp_path: Path, name: str = "app:1") -> Path:
    """Export an image as an OCI layout with copies of its blobs."""
    layout = write_layout(tmp_path / "store", image, tmp_path / "layout", name)
    (layout / "blobs").unlink()
    shutil.copytree(tmp_path / "store" / "blobs", layout / "blobs")
    return layout


async def test_a_root_tar_becomes_an_image_of_one_layer(images: OciImages, tar_of: Layer) -> None:
    for mode, name in (("w", "root.tar"), ("w:gz", "root.tar.gz")):
        found = await images.load(tar_of((entry("etc/hello"), b"hi"), name=name, mode=mode))

        assert list(found) == [""]
        (layer,) = await images.unpack(found[""].digest)
        assert (layer / "etc/hello").read_text() == "hi"
        assert found[""].config.cmd == ("/bin/sh",)


async def test_an_oci_layout_is_loaded_from_a_folder_and_from_a_tar(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    layout = oci_layout(busybox, tmp_path)
    with tarfile.open(tmp_path / "layout.tar", "w") as tar:
        tar.add(layout, arcname=".")

    async with store_at(tmp_path / "other", instance) as other:
        for source in (layout, tmp_path / "layout.tar"):
            assert await other.load(source) == {"app:1": busybox}
            await other.prune(set())


async def test_a_docker_archive_keeps_its_health_check(
    images: OciImages, busybox: ImageInfo, context: Path, tmp_path: Path
) -> None:
    spec = BuildSpec(dockerfile_inline=f"FROM base\n{HEALTHY}\n", bases={"base": busybox.digest})
    image = await images.build(context, spec)
    layout = docker_layout(tmp_path / "store", image, tmp_path / "docker")
    await run("skopeo", "copy", f"oci:{layout}", f"docker-archive:{tmp_path / 'saved.tar'}:app:1")
    await images.prune(set())

    loaded = (await images.load(tmp_path / "saved.tar"))["docker.io/library/app:1"]

    assert loaded.config.healthcheck_test == ("CMD-SHELL", "true")
    assert loaded.config.healthcheck_interval == 7.0


async def test_a_docker_archive_is_loaded_with_its_names(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    layout = oci_layout(busybox, tmp_path)
    archive = tmp_path / "saved.tar"
    await run("skopeo", "copy", f"oci:{layout}:app:1", f"docker-archive:{archive}:example.org/app:1")

    async with store_at(tmp_path / "other", instance) as other:
        found = await other.load(archive)

        assert list(found) == ["example.org/app:1"]
        assert found["example.org/app:1"].layers == busybox.layers
        assert (await other.unpack(found["example.org/app:1"].digest))[0].is_dir()


async def test_a_blob_with_another_content_than_its_digest_is_refused(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    layout = oci_layout(busybox, tmp_path)
    for blob in (layout / "blobs" / "sha256").iterdir():
        original = blob.read_bytes()
        blob.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        async with store_at(tmp_path / f"other-{blob.name}", instance) as other:
            with pytest.raises(InvalidInput, match="does not match its digest"):
                await other.load(layout)
            assert not (tmp_path / f"other-{blob.name}/blobs/sha256/{blob.name}").exists()
        blob.write_bytes(original)


async def test_a_configuration_that_lies_about_its_layers_is_refused(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    layout = oci_layout(busybox, tmp_path)
    folder = layout / "blobs" / "sha256"
    manifest = json.loads((folder / busybox.digest[7:]).read_text())
    config = json.loads((folder / manifest["config"]["digest"][7:]).read_text())
    config["rootfs"]["diff_ids"][0] = "sha256:" + "0" * 64

    def put(document: object) -> str:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        return digest

    manifest["config"]["digest"] = "sha256:" + put(config)
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:" + put(manifest)
    (layout / "index.json").write_text(json.dumps(index))

    async with store_at(tmp_path / "other", instance) as other:
        with pytest.raises(InvalidInput, match="damaged"):
            await other.load(layout)
        assert not (tmp_path / "other" / "layers" / ("0" * 64)).exists()


async def test_whiteouts_hide_files_of_lower_layers(
    images: OciImages, busybox: ImageInfo, context: Path, tmp_path: Path
) -> None:
    dockerfile = (
        "FROM base\nRUN mkdir -p /d /e && echo 1 > /d/a && echo 2 > /d/b && echo 3 > /e/old\n"
        "RUN rm /d/a && rm -r /e && mkdir /e && echo 4 > /e/new\n"
    )
    image = await images.build(
        context, BuildSpec(dockerfile_inline=dockerfile, bases={"base": busybox.digest})
    )

    seen = await merged(await images.unpack(image.digest), tmp_path / "merged", "ls d e")

    assert seen.split() == ["d:", "b", "e:", "new"]


async def test_layers_are_shared_between_images(images: OciImages, busybox: ImageInfo, context: Path) -> None:
    spec = BuildSpec(dockerfile_inline="FROM base\nRUN echo 1 > /one\n", bases={"base": busybox.digest})

    image = await images.build(context, spec)

    below = await images.unpack(busybox.digest)
    assert (await images.unpack(image.digest))[: len(below)] == below


async def test_images_are_found_again_by_the_next_life(
    images: OciImages, busybox: ImageInfo, tmp_path: Path, instance: str
) -> None:
    await images.__aexit__(None, None, None)

    async with store_at(tmp_path / "store", instance) as again:
        assert await again.info(busybox.digest) == busybox
        assert all(path.is_dir() for path in await again.unpack(busybox.digest))


async def test_an_unknown_image_is_not_found(images: OciImages) -> None:
    missing = Digest("sha256:" + "0" * 64)
    with pytest.raises(NotFound):
        await images.info(missing)
    with pytest.raises(NotFound):
        await images.unpack(missing)


async def test_pruning_deletes_what_nobody_uses_and_keeps_the_rest(
    images: OciImages, busybox: ImageInfo, context: Path, tmp_path: Path
) -> None:
    spec = BuildSpec(dockerfile_inline="FROM base\nRUN echo 1 > /one\n", bases={"base": busybox.digest})
    image = await images.build(context, spec)

    freed = await images.prune({busybox.digest})

    assert freed > 0
    with pytest.raises(NotFound):
        await images.info(image.digest)
    assert await images.info(busybox.digest) == busybox
    assert all(path.is_dir() for path in await images.unpack(busybox.digest))
    await images.prune(set())
    assert list((tmp_path / "store/layers").iterdir()) == []
    assert list((tmp_path / "store/blobs/sha256").iterdir()) == []


async def test_a_damaged_layer_blob_is_told_and_discarded(
    images: OciImages, tar_of: Layer, tmp_path: Path, instance: str
) -> None:
    image = (await images.load(tar_of((entry("f"), b"x"))))[""]
    (layer,) = await images.unpack(image.digest)
    blob = next(b for b in (tmp_path / "store/blobs/sha256").iterdir() if b.stat().st_size > 5000)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
    await run("rm", "-r", layer)

    async with store_at(tmp_path / "store", instance) as again:
        with pytest.raises(HostFailure, match="get it again"):
            await again.unpack(image.digest)

    assert not blob.exists()


async def test_a_layer_not_flushed_before_a_power_cut_is_unpacked_again(
    images: OciImages, tar_of: Layer, tmp_path: Path, instance: str
) -> None:
    image = (await images.load(tar_of((entry("f"), b"whole"))))[""]
    (layer,) = await images.unpack(image.digest)
    (layer / "f").write_text("")
    layer.with_name(layer.name + ".volatile").write_text("another boot")

    async with store_at(tmp_path / "store", instance) as again:
        (layer,) = await again.unpack(image.digest)

    assert (layer / "f").read_text() == "whole"


async def test_a_layer_that_a_killed_server_did_not_flush_is_flushed_by_the_next(
    images: OciImages, tar_of: Layer, tmp_path: Path, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = (await images.load(tar_of((entry("f"), b"whole"))))[""]
    (layer,) = await images.unpack(image.digest)
    mark, here = layer.with_name(layer.name + ".volatile"), layers._boot_id()
    mark.write_text(here)
    monkeypatch.setattr(layers.Layers, "_flush", lambda self, diff_id: mark.write_text(f"flushed {diff_id}"))

    async with store_at(tmp_path / "store", instance):
        pass

    assert mark.read_text() == f"flushed sha256:{layer.name}"
    assert (layer / "f").read_text() == "whole"


async def test_a_kill_in_the_middle_of_unpacking_leaves_nothing(
    tmp_path: Path, tar_of: Layer, instance: str
) -> None:
    files = [(entry(f"d{n}/f{m}"), b"x" * 10_000) for n in range(100) for m in range(60)]
    source = tar_of(*files, name="many.tar")
    code = (
        "import asyncio,sys\nfrom pathlib import Path\nfrom tests.providers.images.conftest import store_at\n"
        "async def main():\n async with store_at(Path(sys.argv[1]), sys.argv[2]) as s:\n"
        "  await s.load(Path(sys.argv[3]))\nasyncio.run(main())"
    )
    root = tmp_path / "store"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, root, instance, source, stderr=subprocess.DEVNULL
    )
    while not list(root.glob("tmp/layer-*/d*")):
        await asyncio.sleep(0.005)
        assert process.returncode is None
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert not list((root / "layers").iterdir())

    async with store_at(root, instance) as store:
        assert not list((root / "tmp").iterdir())
        found = await store.load(source)
        (layer,) = await store.unpack(found[""].digest)

    assert len(list(layer.glob("d*/f*"))) == 6000


async def test_a_hostile_archive_beyond_the_limit_leaves_nothing(
    tmp_path: Path, tar_of: Layer, instance: str
) -> None:
    bomb = tar_of((entry("zeros"), bytes(4_000_000)), name="bomb.tar.gz", mode="w:gz")
    store = OciImages(
        root=tmp_path / "store", scratch=tmp_path / "scratch", build_network=None, runtime="runc",
        instance=instance, unpack_limits=UnpackLimits(bytes=1_000_000),  # type: ignore[arg-type]
    )  # fmt: skip

    async with store:
        with pytest.raises(InvalidInput):
            await store.load(bomb)

    assert not list((tmp_path / "store/layers").iterdir())
    assert not list((tmp_path / "store/blobs/sha256").iterdir())
    assert not list((tmp_path / "store/tmp").iterdir())


async def test_looking_up_a_hundred_images_takes_milliseconds(images: OciImages, tar_of: Layer) -> None:
    image = (await images.load(tar_of((entry("f"), b"x"))))[""]

    began = time.perf_counter()
    for _ in range(100):
        await images.info(image.digest)
        await images.unpack(image.digest)

    assert time.perf_counter() - began < 0.05


async def test_what_is_no_image_is_refused(images: OciImages, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (BUSYBOX, tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(InvalidInput):
            await images.load(source)

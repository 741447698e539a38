"""Image stores in temporary folders, registries on loopback, tars made by hand."""

import asyncio
import contextlib
import io
import json
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from skep.model.errors import HostFailure
from skep.model.ids import new_id
from skep.model.images import BuildSpec, ImageInfo
from skep.providers.local.commands import run
from skep.providers.local.images.blobs import Blobs
from skep.providers.local.images.store import OciImages, teardown

BUSYBOX = Path("/bin/busybox")
PASSWORD = "let-me-in"
_HTPASSWD = "tester:$2b$04$CmiwwW8yZ/ajXXvUR0eLBOzEUC3/.ma25PfSI1FGJDXOn0BLru2Wa\n"
_REGISTRY = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: {deletes}}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {file}}}}}"

Layer = Callable[..., Path]


@pytest.fixture
def instance() -> str:
    """A name of its own for what a test makes on the host; short enough for an interface."""
    return f"t{new_id()[-6:]}"


@pytest.fixture
async def images(tmp_path: Path, instance: str) -> AsyncIterator[OciImages]:
    root = tmp_path / "store"
    try:
        async with store_at(root, instance) as store:
            yield store
    finally:
        await teardown(root, instance, purge=True)


def store_at(root: Path, instance: str) -> OciImages:
    return OciImages(
        root=root, scratch=root.parent / "scratch", build_network=None, runtime="runc", instance=instance
    )


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with busybox in it."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "busybox").write_bytes(BUSYBOX.read_bytes())
    (folder / "busybox").chmod(0o755)
    return folder


BASE = (
    'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nCMD ["sh"]\n'
)


@pytest.fixture(scope="session")
def base_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a shell, built once from nothing, as an OCI layout."""
    folder = tmp_path_factory.mktemp("base")
    return asyncio.run(_build_base(folder))


async def _build_base(folder: Path) -> Path:
    context, instance = folder / "context", f"t{new_id()[-6:]}"
    context.mkdir()
    (context / "busybox").write_bytes(BUSYBOX.read_bytes())
    (context / "busybox").chmod(0o755)
    try:
        async with store_at(folder / "store", instance) as store:
            image = await store.build(context, BuildSpec(dockerfile_inline=BASE))
            return write_layout(folder / "store", image, folder / "layout")
    finally:
        await teardown(folder / "store", instance)


@pytest.fixture
async def busybox(images: OciImages, base_layout: Path) -> ImageInfo:
    """A base image with a shell, in the store of the test."""
    return (await images.load(base_layout))[""]


def write_layout(store: Path, image: ImageInfo, target: Path, name: str = "") -> Path:
    """An OCI layout that points to the blobs of a store."""
    target.mkdir()
    (target / "blobs").symlink_to(store / "blobs")
    (target / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest,
        "size": (store / "blobs" / "sha256" / image.digest[7:]).stat().st_size,
        "annotations": {"org.opencontainers.image.ref.name": name} if name else {},
    }
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return target


@pytest.fixture
def tar_of(tmp_path: Path) -> Layer:
    return lambda *entries, name="layer.tar", mode="w": write_tar(tmp_path / name, entries, mode)


def write_tar(
    path: Path, entries: tuple[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], ...], mode: str
) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def entry(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    link: str = "",
    mode: int = 0o644,
    attributes: dict[str, str] | None = None,
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.pax_headers = kind, link, mode, attributes or {}
    return info


@contextlib.asynccontextmanager
async def registry(folder: Path, *, with_password: bool = False, deletes: bool = False) -> AsyncIterator[str]:
    """A docker-registry on loopback; answers `host:port`."""
    folder.mkdir(exist_ok=True)
    (folder / "htpasswd").write_text(_HTPASSWD)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    auth = _AUTH.format(file=folder / "htpasswd") if with_password else ""
    config = folder / "config.yml"
    config.write_text(
        _REGISTRY.format(folder=folder / "data", port=port, auth=auth, deletes=str(deletes).lower())
    )
    process = await asyncio.create_subprocess_exec(
        "docker-registry",
        "serve",
        config,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _answers(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> None:
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise HostFailure("the registry does not answer")


async def push(store: Path, image: ImageInfo, reference: str, credentials: str = "") -> None:
    """Bring an image of a store into a registry, with skopeo."""
    layout = write_layout(store, image, store / "tmp" / f"push-{new_id()}")
    login = ["--dest-creds", credentials] if credentials else []
    await run("skopeo", "copy", "--dest-tls-verify=false", *login, f"oci:{layout}", f"docker://{reference}")


HEALTHY = "HEALTHCHECK --interval=7s CMD true"


def docker_layout(store: Path, image: ImageInfo, target: Path) -> Path:
    """A layout whose one image, which has a health check, is of Docker's schema 2."""
    layout = Blobs(store, store / "tmp").layout_of(image.digest, target)
    assert "vnd.docker.distribution.manifest.v2" in (layout / "index.json").read_text()
    return layout

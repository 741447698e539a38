"""Manifests and configurations of images, as documents: bytes in, typed values out.  No I/O.

Formats: OCI image-spec 1.1 (manifest.md, image-index.md, config.md) and Docker's schema 2, which names the
same fields the same way.
"""

import hashlib
import platform
import re
from typing import Any, TypeVar

import msgspec

from skep.model.errors import InvalidInput
from skep.model.ids import Bytes, Digest
from skep.model.images import ImageConfig, ImageInfo

_T = TypeVar("_T")

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYERS = {
    OCI_LAYER: "application/vnd.docker.image.rootfs.diff.tar",
    f"{OCI_LAYER}+gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_LISTS = {OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_MOST_LAYERS = 127
"""overlayfs takes at most 500 lower directories; engines have agreed on 127 layers."""

HOST_ARCHITECTURE = _ARCHITECTURES.get(platform.machine(), platform.machine())
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    media_type: str = ""
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in _LISTS

    @property
    def name(self) -> str:
        """The reference under which it stands in a layout; empty without one."""
        notes = self.annotations or {}
        return notes.get(_FULL_NAME) or notes.get(REF_NAME, "")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    media_type: str = OCI_MANIFEST
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    manifests: tuple[Descriptor, ...] = ()


class _Health(msgspec.Struct, frozen=True, rename="pascal"):
    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


class _Process(msgspec.Struct, frozen=True, rename="pascal"):
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    volumes: dict[str, object] | None = None
    exposed_ports: dict[str, object] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: _Health | None = None


class _RootFs(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: tuple[str, ...] = ()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The image configuration, of which we read what a container needs."""

    architecture: str = ""
    created: str | None = None
    config: _Process | None = None
    rootfs: _RootFs = _RootFs()


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def checked_digest(text: str) -> Digest:
    """Raises InvalidInput: no SHA-256 digest, the only kind that is used (and safe as a file name)."""
    if not _DIGEST.fullmatch(text):
        raise InvalidInput(f"{text[:80]!r} is not a sha256 digest.")
    return Digest(text)


def read_manifest(data: bytes) -> Manifest:
    """Raises InvalidInput."""
    manifest = _decode(data, Manifest, "manifest")
    for descriptor in (manifest.config, *manifest.layers):
        checked_digest(descriptor.digest)
    if len(manifest.layers) > _MOST_LAYERS:
        raise InvalidInput(f"The image has {len(manifest.layers)} layers; {_MOST_LAYERS} are possible.")
    return manifest


def read_index(data: bytes) -> Index:
    return _decode(data, Index, "index")


def for_this_host(index: Index) -> Descriptor:
    """The manifest of a multi-architecture image that fits this host."""
    fitting = [
        m for m in index.manifests if m.platform is None or m.platform.architecture == HOST_ARCHITECTURE
    ]
    if not fitting:
        there = ", ".join(sorted({m.platform.architecture for m in index.manifests if m.platform}))
        raise InvalidInput(
            f"The image has no variant for {HOST_ARCHITECTURE}, only for {there or 'nothing'}."
        )
    return fitting[0]


def describe(digest: Digest, manifest: Manifest, configuration: bytes) -> ImageInfo:
    """What control and engine want to know; `size` is that of the blobs as they are stored.

    Raises:
        InvalidInput: manifest and configuration do not fit together.
    """
    read = _decode(configuration, Configuration, "configuration")
    layers = tuple(checked_digest(layer) for layer in read.rootfs.diff_ids)
    if len(layers) != len(manifest.layers):
        raise InvalidInput(
            f"The image is broken: its manifest has {len(manifest.layers)} layers, "
            f"its configuration {len(layers)}."
        )
    return ImageInfo(
        digest=digest,
        config=_image_config(read.config or _Process()),
        layers=layers,
        size=Bytes(manifest.config.size + sum(layer.size for layer in manifest.layers)),
        architecture=read.architecture or HOST_ARCHITECTURE,
        created=read.created or "",
    )


def with_healthcheck(configuration: bytes, source: bytes) -> bytes:
    """The configuration with the health check of its `source`, which a conversion to OCI leaves out.

    OCI's configuration has no word for it, so containers/image drops it; Docker's `Healthcheck` fits in as it
    is.  Without one the configuration stays what it is, byte by byte.

    Raises:
        InvalidInput: they are of different images.
    """
    theirs = _decode(source, dict[str, Any], "configuration")
    check = (theirs.get("config") or {}).get("Healthcheck")
    ours = _decode(configuration, dict[str, Any], "configuration")
    process = ours.get("config") or {}
    if not check or process.get("Healthcheck") == check:
        return configuration
    if theirs.get("rootfs") != ours.get("rootfs"):
        raise InvalidInput("The image changed while it was fetched.")
    return msgspec.json.encode(ours | {"config": process | {"Healthcheck": check}})


def as_docker(manifest: Manifest, configuration: bytes) -> Manifest | None:
    """The same image under Docker's media types, for tools that believe a health check only there.

    None: it has no health check, or a layer in a compression that Docker's schema 2 does not know.
    """
    process = _decode(configuration, Configuration, "configuration").config
    layers = [_DOCKER_LAYERS.get(layer.media_type) for layer in manifest.layers]
    if process is None or process.healthcheck is None or None in layers:
        return None
    return Manifest(
        media_type=_DOCKER_MANIFEST,
        config=msgspec.structs.replace(manifest.config, media_type=_DOCKER_CONFIG),
        layers=tuple(
            msgspec.structs.replace(layer, media_type=name or "")
            for layer, name in zip(manifest.layers, layers, strict=True)
        ),
    )


def _image_config(process: _Process) -> ImageConfig:
    health = process.healthcheck or _Health()
    default = ImageConfig()
    return ImageConfig(
        env=process.env or (),
        entrypoint=process.entrypoint or (),
        cmd=process.cmd or (),
        working_dir=process.working_dir or "/",
        user=process.user,
        volumes=tuple(sorted(process.volumes or ())),
        exposed_ports=tuple(sorted(process.exposed_ports or ())),
        labels=process.labels or {},
        stop_signal=process.stop_signal,
        healthcheck_test=health.test or (),
        # Nanoseconds; 0 means "inherit", which is the default here.
        healthcheck_interval=health.interval / 1e9 or default.healthcheck_interval,
        healthcheck_timeout=health.timeout / 1e9 or default.healthcheck_timeout,
        healthcheck_retries=health.retries or default.healthcheck_retries,
        healthcheck_start_period=health.start_period / 1e9,
    )


def plain_configuration(diff_id: Digest, cmd: tuple[str, ...]) -> bytes:
    """The configuration of an image that is one root file system.

    It needs a history: without one builders find nothing of theirs in their cache.
    """
    return msgspec.json.encode(
        {
            "architecture": HOST_ARCHITECTURE,
            "os": "linux",
            "config": {"Env": [DEFAULT_PATH], "Cmd": list(cmd)},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "root file system"}],
        }
    )


def _decode(data: bytes, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The image's {what} cannot be read: {error}") from error

"""Images without a registry: OCI archives made of what Debian has on this machine."""

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.machines import busybox_archive

PAUSE = "localhost/pause:1"
"""What holds the namespaces of a pod."""
BUSYBOX = "localhost/busybox:1"
"""For tests: a shell, and a web server."""
_INIT = "/usr/bin/catatonit"


def archive(folder: Path) -> Path:
    """An OCI archive with both images."""
    with tempfile.TemporaryDirectory() as scratch:
        pause = _pause_root(Path(scratch))
        busybox = busybox_archive(Path(scratch))
        return write(
            folder / "images.tar",
            (PAUSE, pause.read_bytes(), ("/catatonit", "-P")),
            (BUSYBOX, busybox.read_bytes(), ("sh",)),
        )


def write(path: Path, *images: tuple[str, bytes, Sequence[str]]) -> Path:
    """An OCI archive of images: name, root file system as a tar, command."""
    blobs: dict[str, bytes] = {}
    index = {"schemaVersion": 2, "manifests": [_image(blobs, *image) for image in images]}
    files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps(index).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def _image(blobs: dict[str, bytes], name: str, root: bytes, command: Sequence[str]) -> dict[str, object]:
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(root).hexdigest()}"]},
    }
    oci = "application/vnd.oci.image"
    layer = _blob(blobs, gzip.compress(root, 1, mtime=0), f"{oci}.layer.v1.tar+gzip")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": _blob(blobs, json.dumps(config).encode(), f"{oci}.config.v1+json"),
        "layers": [layer],
    }
    described = _blob(blobs, json.dumps(manifest).encode(), f"{oci}.manifest.v1+json")
    # containerd would add a name of its own to what the standard's annotation says.
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    return described | {"annotations": names}


def _blob(blobs: dict[str, bytes], content: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _pause_root(folder: Path) -> Path:
    root = folder / "pause"
    root.mkdir()
    shutil.copy(_INIT, root / "catatonit")
    with tarfile.open(folder / "pause.tar", "w") as tar:
        tar.add(root, ".")
    return folder / "pause.tar"


def _architecture() -> str:
    """As OCI calls it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

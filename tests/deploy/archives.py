"""Images that skep built, as archives for nodes."""

import io
import json
import tarfile
from pathlib import Path


def named(archive: Path, name: str, into: Path) -> Path:
    """The same image with a name in it, by which containerd knows it."""
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    with tarfile.open(archive) as source, tarfile.open(into, "w") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            if member.name == "index.json":
                index = json.load(content)
                index["manifests"] = [manifest | {"annotations": names} for manifest in index["manifests"]]
                content = io.BytesIO(json.dumps(index).encode())
                member.size = len(content.getvalue())
            target.addfile(member, content)
    return into

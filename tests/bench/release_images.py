"""The image of `make bench-release`: Debian with Python's aiohttp, made once and kept in the cache folder."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "skep-bench"
SERVER = Path(__file__).with_name("release_server.py")


def release_archive() -> Path:
    """A root file system as a tar; a minute the first time."""
    archive = CACHE / f"release-{hashlib.sha256(SERVER.read_bytes()).hexdigest()[:12]}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        root = Path(folder) / "root"
        subprocess.run(
            [
                *("debootstrap", "--variant=minbase", "--include=python3-aiohttp,curl", "bookworm"),
                str(root),
                *filter(None, [_mirror()]),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        shutil.copy(SERVER, root / "server.py")
        part = Path(folder) / "release.tar"
        with tarfile.open(part, "w") as tar:
            tar.add(root, arcname=".")
        part.replace(archive)
    return archive


def _mirror() -> str:
    """The one that this machine installs from; empty: debootstrap's own."""
    known = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"],
        check=False,
        capture_output=True,
        text=True,
    )
    pairs = (line.split() for line in known.stdout.splitlines())
    return next((uri for name, uri in pairs if name == "bookworm"), "")

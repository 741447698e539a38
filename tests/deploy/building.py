"""The images of deploy/, built by skep as the how-to says.  What has not changed is not built again."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.installation import Installation
from tests.deploy.manifests import DEPLOY, ROOT

_KEPT = ROOT / "build" / "images"
CONTROL = ("deploy/Dockerfile", "requirements.lock", "pyproject.toml", "src")
TRIAL = ("deploy/trial",)


def archives() -> tuple[Path, Path]:
    """Of skep, and of what a trial stands on."""
    wanted = (_place("skep", CONTROL), _place("trial", TRIAL))
    if not all(place.exists() for place in wanted):
        _build(*wanted)
    return wanted


def _place(name: str, parts: tuple[str, ...]) -> Path:
    content = hashlib.sha256()
    for file in sorted(_files(parts)):
        content.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return _KEPT / f"{name}-{content.hexdigest()[:16]}.tar"


def _files(parts: tuple[str, ...]) -> Iterator[Path]:
    for part in parts:
        path = ROOT / part
        found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        yield from (file for file in found if "__pycache__" not in file.parts)


def _build(control: Path, trial: Path) -> None:
    _KEPT.mkdir(parents=True, exist_ok=True)
    subprocess.run([ROOT / "scripts" / "wheels"], check=True, capture_output=True)
    with Installation(
        instance="skepimage", networks="10.80.0.0/12", links="100.99.0.0/16", pool_size="8GiB"
    ) as skep:
        skep.start()
        skep.command("image", "bootstrap", "debian")
        skep.command("image", "build", "--tag=skep:1", "--file=deploy/Dockerfile", str(ROOT))
        skep.command("image", "build", "--tag=skep-trial:1", str(DEPLOY / "trial"))
        skep.command("image", "save", "skep:1", str(control))
        skep.command("image", "save", "skep-trial:1", str(trial))

"""Images of deploy/ and of the shop, built by skep as is said there.  What is as before is not built again.

`python -m tests.deploy.building` builds them while something else is under way: `make test-kubernetes`.
"""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.installation import Installation
from tests.cluster.kubernetes.build import CACHE
from tests.cluster.kubernetes.progress import say
from tests.deploy.manifests import ROOT

_KEPT = CACHE / "images"
_OF_EACH = 3
"""How many of them stay, for checkouts that differ."""
BASE = ("src/skep/providers/local/images/debootstrap.py",)
CONTROL = ("deploy/Dockerfile", "requirements.lock", "pyproject.toml", "src")
TRIAL = "deploy/trial"
SHOP = {f"shop-{service}": f"examples/shop/{service}" for service in ("web", "api", "db")}


def archives() -> tuple[Path, Path]:
    """Of skep, and of what a trial stands on.  Whoever else builds them is waited for."""
    control, trial = _place("skep", CONTROL), _of_debian("trial", TRIAL)
    _have({control: ("--file=deploy/Dockerfile", str(ROOT)), trial: (str(ROOT / TRIAL),)})
    return control, trial


def shop() -> dict[str, Path]:
    """Of the shop of the examples, by the names that its Compose file gives them."""
    places = {name: _of_debian(name, folder) for name, folder in SHOP.items()}
    _have({places[name]: (str(ROOT / folder),) for name, folder in SHOP.items()})
    return places


def _have(wanted: Mapping[Path, Sequence[str]]) -> None:
    """These archives are there, built with those words where they were not."""
    base = _place("debian", BASE)
    with _alone():
        missing = {place: words for place, words in wanted.items() if not place.exists()}
        if missing:
            _build(base, missing)
        for place in (base, *wanted):
            _keep(place)


def _build(base: Path, missing: Mapping[Path, Sequence[str]]) -> None:
    with Installation(
        instance="skepimage", networks="10.200.0.0/13", links="100.99.0.0/16", pool_size="8GiB"
    ) as skep:
        skep.start()
        _have_debian(skep, base)
        for place, words in missing.items():
            if str(ROOT) in words:
                subprocess.run([ROOT / "scripts" / "wheels"], check=True, capture_output=True)
            _build_one(skep, place, *words)


def _have_debian(skep: Installation, kept: Path) -> None:
    if kept.exists():
        skep.command("image", "import", str(kept), "debian:bookworm")
        return
    say("making the base image of Debian")
    skep.command("image", "bootstrap", "debian")
    _save(skep, "debian:bookworm", kept)


def _build_one(skep: Installation, place: Path, *words: str) -> None:
    say(f"building the image {_kind(place)}")
    name = f"{_kind(place)}:1"
    skep.command("image", "build", f"--tag={name}", *words)
    _save(skep, name, place)


def _save(skep: Installation, name: str, place: Path) -> None:
    """Whole, or not at all."""
    part = place.with_suffix(".part")
    skep.command("image", "save", name, str(part))
    part.rename(place)


def _keep(place: Path) -> None:
    """It is the newest of its kind now; of the others those used last stay."""
    if place.exists():
        os.utime(place)
    kept = sorted(_KEPT.glob(f"{_kind(place)}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[_OF_EACH:]:
        path.unlink()


def _kind(place: Path) -> str:
    """What it is the image of."""
    return place.name.rpartition("-")[0]


def _of_debian(name: str, folder: str) -> Path:
    return _place(name, (folder, *BASE))


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


@contextmanager
def _alone() -> Iterator[None]:
    _KEPT.mkdir(parents=True, exist_ok=True)
    with (CACHE / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    # What was begun is removed, also by who ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    shop()
    archives()

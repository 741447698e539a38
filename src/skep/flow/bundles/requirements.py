"""The packages that a bundle requires, in a directory of their own that all bundles with the same ones share.

Only built packages (wheels) are taken: building one would run its code outside of any confinement.
"""

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from skep.flow.bundles.package import Package
from skep.flow.bundles.refusals import BundleRefused

WHEELS = "wheels/"
"""Where a bundle may carry packages itself."""
PATIENCE = 300.0
SHARED = ("msgspec", "sqlalchemy", "structlog", "pyyaml", "zstandard")
"""Packages that skep brings into the process; a bundle gets these versions of them."""


class Requirements:
    """Keeps directories of installed packages below `cache`.  `offline`: only what the bundles carry."""

    def __init__(self, cache: Path, *, offline: bool = False) -> None:
        self._cache = cache
        self._offline = offline
        self._installing = asyncio.Lock()

    def place(self, package: Package) -> Path | None:
        """Where the packages that it requires are or will be; None if it requires none."""
        wanted = package.manifest.requirements
        if not wanted:
            return None
        told = hashlib.sha256(repr((sorted(wanted), sys.version_info[:3])).encode())
        for name in sorted(package.files):
            if name.startswith(WHEELS):
                told.update(name.encode() + hashlib.sha256(package.files[name]).digest())
        return self._cache / told.hexdigest()[:32]

    async def install(self, package: Package, home: Path) -> Path | None:
        """Install them unless they are; `home` is where the bundle is unpacked.

        Raises:
            BundleRefused: with what the installer said.
        """
        place = self.place(package)
        if place is None or place.exists():
            return place
        async with self._installing:
            if not place.exists():
                await self._install(package.manifest.requirements, home / WHEELS, place)
        return place

    def keep_only(self, places: set[Path]) -> None:
        """Delete all others."""
        if self._cache.exists():
            for path in self._cache.iterdir():
                if path not in places:
                    shutil.rmtree(path, ignore_errors=True)

    async def _install(self, wanted: tuple[str, ...], wheels: Path, place: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".installing-", dir=self._cache))
        try:
            await self._run([*_installer(), *self._options(draft, wheels), "--", *wanted])
            draft.chmod(0o755)
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _options(self, draft: Path, wheels: Path) -> list[str]:
        constraints = draft.parent / "shared.txt"
        constraints.write_text("".join(f"{name}=={version(name)}\n" for name in SHARED))
        found = ["--find-links", str(wheels)] if wheels.is_dir() else []
        offline = ["--no-index"] if self._offline else []
        return ["--target", str(draft), "--only-binary", ":all:", "-c", str(constraints), *found, *offline]

    async def _run(self, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                said, _ = await process.communicate()
        except TimeoutError as error:
            raise BundleRefused([f"its requirements were not installed after {PATIENCE:g} s"]) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            words = " ".join(said.decode("utf-8", "replace").split())[-2000:]
            raise BundleRefused([f"its requirements cannot be installed: {words}"])


def _installer() -> list[str]:
    """uv where there is one, else pip.  Neither asks anything."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--no-progress", "--python", os.path.abspath(sys.executable)]  # noqa: PTH100
    return [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]

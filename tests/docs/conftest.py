"""A skep as `make up` leaves it, but an installation of its own, for the tutorial to run against."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bench.installation import Installation, free_port

ROOT = Path(__file__).resolve().parents[2]


class Newcomer:
    """Somebody in a copy of the repository's root who types commands."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.environment = environment

    def type(self, line: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run the line; both outputs come together, as on a terminal."""
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    for name in ("examples", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    with Installation(
        instance=f"t{secrets.token_hex(3)}",  # what a killed run left is not in the way
        networks="10.112.0.0/12",
        links=f"100.{104 + secrets.randbelow(23)}.0.0/16",
        pool_size="20GiB",
    ) as skep:
        skep.start()
        environment = {
            **os.environ,
            **skep.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SKEP_URL": f"http://{skep.listen}",
            "SKEP_TOKEN": (skep.directory / "etc" / "admin.token").read_text().strip(),
            "HELLO_PORT": str(free_port()),
            "SHOP_PORT": str(free_port()),
        }
        someone = Newcomer(tmp_path, environment)
        for line in (
            "scripts/base-image build/busybox.tar",
            "skep image import build/busybox.tar busybox:latest --shared",
            "skep apply examples/hello/compose.yaml",
            "examples/hello/check.sh",
        ):
            done = someone.type(line)
            assert done.returncode == 0, f"{line}\n{done.stdout}"
        yield someone

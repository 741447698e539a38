"""Where a process may not be confined nothing runs, unless the worker was told to do without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]
NOBODY = ("--reuid", "65534", "--regid", "65534", "--clear-groups")


def worker(directory: Path, allowed: str, *privileges: str, python: str = sys.executable) -> str:
    """The last line that a worker with these privileges prints."""
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    paths = [str(ROOT / "src"), str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    said = subprocess.run(
        ["setpriv", *privileges, python, "-B", "-m", "tests.flow.bundles.weak_worker", directory, allowed],
        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHONPATH": ":".join(paths)},
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )
    lines = said.stdout.strip().splitlines()
    assert lines, said.stderr
    return lines[-1]


def test_without_the_privilege_to_confine_a_bundle_is_refused(tmp_path: Path) -> None:
    said = worker(tmp_path / "w", "confined", "--bounding-set=-sys_admin")

    assert said == "refused: its process cannot be confined: [Errno 1] unshare: Operation not permitted"


def test_a_worker_that_was_told_to_does_without(tmp_path: Path) -> None:
    said = worker(tmp_path / "w", "unconfined", "--bounding-set=-sys_admin")

    assert said.startswith("ran: [0, ")
    assert said != "ran: [0, 1]"


def test_a_worker_that_is_not_root_confines_by_a_namespace_of_users(tmp_path: Path) -> None:
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    if not Path(python).exists() or not _may_be_used_by_others(tmp_path):
        pytest.skip("no Python, or no directory, that another user may use")
    said = worker(tmp_path / "w", "confined", *NOBODY, python=python)

    assert said == "ran: [65534, 1]"


def _may_be_used_by_others(path: Path) -> bool:
    for parent in path.parents:
        if parent.name.startswith("pytest-") and parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    path.chmod(0o755)
    return all(parent.stat().st_mode & 0o001 for parent in (ROOT, *ROOT.parents, *path.parents))

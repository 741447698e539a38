"""The code of the release before this one, as it was."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMIT = os.environ.get("SKEP_RELEASE_BEFORE", "77a4f7f")
"""The commit or tag that is taken for it, of the history of this checkout; moved on with each release."""
VERSION = "0.0.before"


def release_before(folder: Path) -> Path:
    """What `PYTHONPATH` must be for its processes, which say that they are of `VERSION`."""
    archive = folder / "release.tar"
    done = subprocess.run(
        ["git", "-C", ROOT, "archive", f"--output={archive}", COMMIT, "src"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, (
        f"The code of the release before this one (commit {COMMIT}) is not in {ROOT}: {done.stderr.strip()}. "
        "It is taken from the history: clone with all of it, or 'git fetch --unshallow' where it is shallow."
    )
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    (folder / "src/skep/__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    return folder / "src"

"""Where a process keeps uploads until the run that takes them."""

import time
from pathlib import Path

from skep.configuration import Configuration


def spool(settings: Configuration) -> Path:
    """Where uploads wait; those whose run never began are swept: a day is longer than any run may wait."""
    directory = settings.data / "spool"
    directory.mkdir(exist_ok=True, mode=0o700)
    for path in directory.iterdir():
        if path.stat().st_mtime < time.time() - 86_400:
            path.unlink()
    return directory

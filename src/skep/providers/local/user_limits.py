"""Limits that the kernel counts by user: root in one container is root in all of them, and on the host.

What a container takes of these is charged to its own memory limit too, so they may be high: then nobody can
take all from the others.
"""

from pathlib import Path

import structlog

_LIMITS = {
    "fs/inotify/max_user_instances": 65_536,
    "fs/inotify/max_user_watches": 4_194_304,
    "fs/pipe-user-pages-soft": 1_048_576,
}
"""Below /proc/sys, as in inotify(7) and pipe(7); the kernel's own are 128, 8,192 or more, and 16,384."""
log = structlog.get_logger(__name__)


def raise_user_limits() -> None:
    """Raise what is lower; what the kernel does not have or does not let us change stays."""
    for name, most in _LIMITS.items():
        path = Path("/proc/sys", name)
        try:
            if 0 < int(path.read_text()) < most:
                path.write_text(str(most))
        except OSError as error:
            log.warning("host.limit-not-raised", limit=name, error=str(error))

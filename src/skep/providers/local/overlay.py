"""A container's root file system: the image's layers below, its system disk above.

The system disk holds `upper` and `work`; the merged view is mounted wherever the caller wants it.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from skep.providers.local.kernel import mount, unmount

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SPECIAL = frozenset(":,\\")
"""What separates and escapes in the options of an overlay."""


def mount_overlay(layers: Sequence[Path], disk: Path, target: Path) -> None:
    """Mount the layers (lowest first) under `disk` at `target`; what was mounted there is replaced.

    Raises:
        OSError: as mount(2).
    """
    unmount(target)
    for directory in (disk / "upper", disk / "work", target):
        directory.mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as opened:
        options = _options([str(layer) for layer in reversed(layers)], str(disk))
        if len(options) >= _PAGE or not _plain([*map(str, layers), str(disk)]):
            lowers = [_by_descriptor(opened, layer) for layer in reversed(layers)]
            options = _options(lowers, _by_descriptor(opened, disk))
        mount("overlay", target, "overlay", 0, options)


def unmount_overlay(target: Path) -> None:
    """Not mounted or not there is success."""
    unmount(target)


def _options(lowers: Sequence[str], disk: str) -> str:
    """`index=off` lets two views of one upper directory follow each other without a trace, as Docker does."""
    return f"lowerdir={':'.join(lowers)},upperdir={disk}/upper,workdir={disk}/work,index=off"


def _plain(paths: Sequence[str]) -> bool:
    return all(_SPECIAL.isdisjoint(path) for path in paths)


def _by_descriptor(opened: ExitStack, path: Path) -> str:
    """A name of at most 20 characters: the kernel takes no more than a page of options."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return f"/proc/self/fd/{descriptor}"

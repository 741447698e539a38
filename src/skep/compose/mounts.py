"""The short syntax of `volumes` and `tmpfs`.

Format: [SOURCE:]TARGET[:OPTIONS] (https://github.com/compose-spec/compose-spec/blob/main/05-services.md#volumes).
"""

import re
from typing import NamedTuple

PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})
_DRIVE = re.compile(r"[A-Za-z]:(\\|/[^:]*:/)")
"""`v:/data` is a volume v; `C:\\data` and `C:/data:/data` are of Windows."""


class ShortMount(NamedTuple):
    target: str
    source: str = ""
    bind: bool = False
    read_only: bool = False
    nocopy: bool = False
    others: tuple[str, ...] = ()
    """Options we read but do not act on: propagation, SELinux labels, consistency."""


def parse_mount(text: str) -> ShortMount:
    """One entry of `volumes` in short syntax.

    Raises:
        ValueError: it names no target, has an unknown option, or is a Windows path.
    """
    if _DRIVE.match(text) or text.startswith("\\\\"):
        raise ValueError(f"{_clip(text)}: Windows paths are not supported")
    parts = text.split(":")
    if not all(parts):
        raise ValueError(f"{_clip(text)}: nothing stands between its colons")
    if len(parts) > 3:
        raise ValueError(f"{_clip(text)} has too many colons: write SOURCE:TARGET or SOURCE:TARGET:ro")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    options = parts[2].split(",") if len(parts) == 3 else []
    return _with_options(ShortMount(target, source, source[:1] in (".", "/", "~")), options, text)


def _with_options(mount: ShortMount, options: list[str], text: str) -> ShortMount:
    for option in options:
        if option in ("ro", "rw"):
            mount = mount._replace(read_only=option == "ro")
        elif option == "nocopy":
            mount = mount._replace(nocopy=True)
        elif option in PROPAGATIONS | {"z", "Z", "cached", "delegated", "consistent"}:
            mount = mount._replace(others=(*mount.others, option))
        else:
            raise ValueError(f"{_clip(text)}: unknown option {_clip(option)}")
    return mount


class ShortTmpfs(NamedTuple):
    target: str
    size: str | None = None
    mode: str | None = None
    read_only: bool = False
    others: tuple[str, ...] = ()


def parse_tmpfs(text: str) -> ShortTmpfs:
    """`/run`, `/run:size=64m,mode=1777`."""
    target, _, options = text.partition(":")
    tmpfs = ShortTmpfs(target)
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name == "size":
            tmpfs = tmpfs._replace(size=value)
        elif name == "mode":
            tmpfs = tmpfs._replace(mode=value)
        elif name in ("ro", "rw"):
            tmpfs = tmpfs._replace(read_only=name == "ro")
        else:
            tmpfs = tmpfs._replace(others=(*tmpfs.others, option))
    return tmpfs


def _clip(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")

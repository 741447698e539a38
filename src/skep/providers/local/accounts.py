"""Who a container's process is: names looked up in the image's own /etc/passwd and /etc/group.

The files belong to a tenant, so they are opened without leaving the root file system and read with a limit.
Formats: passwd(5), group(5).
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput
from skep.providers.local.kernel import open_in_root

_LIMIT = 4 * 1024 * 1024
_MAX_ID = 2**32 - 2


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Numeric ids as the kernel wants them, and the home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


class Accounts:
    """The accounts of one image, given as the text of its two files."""

    def __init__(self, passwd: str, group: str) -> None:
        self._users = [row for row in _rows(passwd, 7) if row[2].isdecimal() and row[3].isdecimal()]
        self._groups = [row for row in _rows(group, 4) if row[2].isdecimal()]

    @classmethod
    def of(cls, rootfs: Path) -> "Accounts":
        return cls(_read(rootfs, "/etc/passwd"), _read(rootfs, "/etc/group"))

    def identify(self, user: str, group_add: Iterable[str] = ()) -> Identity:
        """Resolve `user`, `uid`, `user:group` or `uid:gid`; empty is root.

        A number need not be known.  Without an explicit group the user's own and all it is a member of hold.

        Raises:
            InvalidInput: the image has no such user or group.
        """
        name, _, group = user.partition(":")
        row = self._user(name or "0")
        uid = int(row[2]) if row else _number(name or "0", "user")
        gid = self._gid(group) if group else int(row[3]) if row else 0
        member = [] if group or not row else [int(g[2]) for g in self._groups if row[0] in g[3].split(",")]
        extra = [self._gid(name) for name in group_add]
        home = row[5] if row and row[5].startswith("/") else "/"
        return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys([*member, *extra])), home=home)

    def _user(self, name: str) -> list[str] | None:
        return next((r for r in self._users if r[0] == name), None) or next(
            (r for r in self._users if r[2] == name), None
        )

    def _gid(self, name: str) -> int:
        row = next((r for r in self._groups if r[0] == name), None)
        return int(row[2]) if row else _number(name, "group")


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise InvalidInput(f"the image has no {what} '{text[:80]}'")
    if int(text) > _MAX_ID:
        raise InvalidInput(f"{what} id {text[:20]} is larger than {_MAX_ID}")
    return int(text)


def _rows(text: str, fields: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= fields]


def _read(rootfs: Path, path: str) -> str:
    """The text of a regular file inside the root file system; "" when there is none."""
    try:
        descriptor = open_in_root(rootfs, path, os.O_PATH)
    except OSError:
        return ""
    try:
        # Looked at before it is opened: a container may make device nodes, and opening some (a watchdog)
        # already acts on the host.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        with Path(f"/proc/self/fd/{descriptor}").open("rb") as file:
            return file.read(_LIMIT).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)

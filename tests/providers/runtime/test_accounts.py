"""Users and groups of an image."""

import os
import stat
import sys
from pathlib import Path

import pytest

from skep.model.errors import InvalidInput
from skep.providers.local.accounts import Accounts, Identity

ACCOUNTS = Accounts(
    "root:x:0:0::/root:/bin/sh\nbroken line\nweb:x:33:34:Web:/var/www:/bin/sh\n4711:x:5:6::/n:/bin/sh\n",
    "root:x:0:\nweb:x:34:\nssl:x:101:web,other\nbad:x:y:\n",
)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(uid=0, gid=0, home="/root")),
        ("web", Identity(uid=33, gid=34, groups=(101,), home="/var/www")),
        ("33", Identity(uid=33, gid=34, groups=(101,), home="/var/www")),
        ("web:ssl", Identity(uid=33, gid=101, home="/var/www")),
        ("1000", Identity(uid=1000, gid=0)),
        ("1000:1000", Identity(uid=1000, gid=1000)),
        (":ssl", Identity(uid=0, gid=101, home="/root")),
        ("4711", Identity(uid=5, gid=6, home="/n")),
    ],
)
def test_a_user_is_a_name_or_a_number(user: str, expected: Identity) -> None:
    assert ACCOUNTS.identify(user) == expected


@pytest.mark.parametrize("user", ["nobody", "web:nogroup", "-1", "99999999999", "²"])
def test_who_does_not_exist_is_named(user: str) -> None:
    with pytest.raises(InvalidInput):
        ACCOUNTS.identify(user)


def test_further_groups_are_added_once() -> None:
    assert ACCOUNTS.identify("web", ["ssl", "7", "7"]).groups == (101, 7)


def test_strange_files_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc" / "passwd")
    (tmp_path / "etc" / "group").symlink_to("/proc/self/environ")

    assert Accounts.of(tmp_path).identify("0") == Identity(uid=0, gid=0)


@pytest.mark.root
def test_a_device_in_their_place_is_not_even_opened(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mknod(tmp_path / "etc" / "passwd", stat.S_IFCHR | 0o666, os.makedev(10, 130))
    opened: list[str] = []
    sys.addaudithook(lambda event, details: opened.append(str(details[0])) if event == "open" else None)

    assert Accounts.of(tmp_path).identify("0") == Identity(uid=0, gid=0)
    assert not [path for path in opened if path.startswith("/proc/self/fd/")]

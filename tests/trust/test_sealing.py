"""Who may read the file with the key of an installation."""

import os
from pathlib import Path

import pytest

from skep.model.errors import InvalidInput
from skep.trust.sealing import Seal, is_open

NOBODY = 65534


def file(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "user", "expected"),
    [
        (0o600, 0, 0, False),
        (0o640, 0, 0, True),
        (0o604, 0, 0, True),
        (0o600, NOBODY, NOBODY, False),
        (0o640, NOBODY, NOBODY, True),
        (0o440, 0, NOBODY, False),
        (0o460, 0, NOBODY, True),
        (0o444, 0, NOBODY, True),
    ],
)
def test_what_is_lent_by_root_may_be_read_by_its_group(
    mode: int, owner: int, user: int, expected: bool
) -> None:
    assert is_open(file(mode, owner), user) is expected


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    Seal.make(path)
    path.chmod(0o644)

    with pytest.raises(InvalidInput, match="chmod 600"):
        Seal.read(path)

"""What is installed is what the project asks for, pinned, from no particular index."""

import re
import tomllib
from collections.abc import Iterable

import pytest
from tests.docs.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]
DEVELOPMENT = RUNTIME + PROJECT["dependency-groups"]["dev"]


@pytest.mark.parametrize(
    ("lock", "wanted"), [("requirements.lock", RUNTIME), ("requirements-dev.lock", DEVELOPMENT)]
)
def test_the_lock_pins_everything_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*])?==", (ROOT / lock).read_text(), re.MULTILINE))

    assert names(wanted) - pinned == set(), "run `make lock`"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_names_no_index(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()


def names(requirements: Iterable[str]) -> set[str]:
    """Normalised as in PEP 503."""
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}

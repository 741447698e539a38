"""The page about isolation names every attack that is tested, and every test that it names exists."""

import os
import re
import subprocess
import sys

import pytest
from tests.docs.conftest import ROOT

PAGE = ROOT / "docs" / "reference" / "isolation.md"
FILE = re.compile(r"^`(tests/attack/[\w/]+\.py)`$")
TEST = re.compile(r"`(test_\w+(?:\[[^\]]+\])?)`")


def rows() -> list[tuple[str, list[str]]]:
    """The file of each row's section, and the row's cells."""
    found, file = [], ""
    for line in PAGE.read_text().splitlines():
        if match := FILE.match(line):
            file = match[1]
        elif line.startswith("| ") and not line.startswith("| **"):
            found.append((file, [cell.strip() for cell in line.split("|")[1:-1]]))
    return found


def named() -> set[str]:
    return {f"{file}::{test}" for file, cells in rows() for test in TEST.findall(" ".join(cells[2:]))}


@pytest.fixture(scope="module")
def collected() -> set[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/attack",
    ]
    done = subprocess.run(
        [*command, "-n0"] if "PYTEST_XDIST_WORKER" in os.environ else command,
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return {line for line in done.stdout.splitlines() if line.startswith("tests/attack/") and "::" in line}


def test_a_test_that_is_named_exists(collected: set[str]) -> None:
    assert named() - collected == set()


def test_an_attack_that_is_tested_is_named(collected: set[str]) -> None:
    assert collected - named() == set()


def test_every_attack_is_shown_to_fail_and_to_be_real() -> None:
    incomplete = [
        cells[0]
        for _, cells in rows()
        if not cells[0].startswith("(") and not (TEST.search(cells[2]) and TEST.search(cells[3]))
    ]

    assert incomplete == []

"""The table of the flow engine's features names a test for every promise, and each of them exists."""

import re

import pytest
from tests.docs.conftest import ROOT

PAGE = ROOT / "docs" / "reference" / "flow-features.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
PEERS = 6
MARKS = {"yes", "partly", "no"}


def rows() -> list[list[str]]:
    """The cells of each promise: the promise, its tests, and a mark for each of the others."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [row for row in cells if len(row) == 2 + PEERS and not row[0].startswith("**")]


def named() -> list[tuple[str, str]]:
    return sorted(set(TEST.findall(PAGE.read_text())))


@pytest.mark.parametrize(("file", "test"), named(), ids=lambda part: part)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    text = (ROOT / file).read_text() if (ROOT / file).exists() else ""

    assert re.search(rf"^ *(async )?def {test}\(|^{test}\b.* = ", text, re.MULTILINE), f"{file} has no {test}"


def test_every_promise_names_a_test() -> None:
    assert [row[0] for row in rows() if not TEST.search(row[1])] == []


def test_every_promise_is_compared_with_all_the_others() -> None:
    assert [row[0] for row in rows() if not is_compared(row[2:])] == []


def is_compared(marks: list[str]) -> bool:
    return len(marks) == PEERS and set(marks) <= MARKS

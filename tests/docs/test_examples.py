"""The examples are projects that skep reads without a complaint."""

import os
from pathlib import Path

import pytest
from tests.docs.conftest import ROOT

from skep.compose import load_project, to_app_spec

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/compose.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_read_without_a_warning(example: Path) -> None:
    project = load_project([example / "compose.yaml"], environment={"PATH": os.environ["PATH"]})

    spec = to_app_spec(project, {name: f"{name}:latest" for name in project.services})

    assert not project.warnings
    assert spec.name == example.name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_explains_and_proves_itself(example: Path) -> None:
    assert os.access(example / "check.sh", os.X_OK)
    assert f"skep apply examples/{example.name}/compose.yaml" in (example / "README.md").read_text()

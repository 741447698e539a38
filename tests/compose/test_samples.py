"""Projects of the kind people publish give the same app as when a person last read the result.

After a change that is meant, write them anew with `SKEP_WRITE_GOLDEN=1` and read the difference.
"""

import json
import os
from pathlib import Path

import msgspec
import pytest

from skep.compose import load_project, to_app_spec

SAMPLES = Path(__file__).parent / "samples"


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_a_published_project_gives_the_app_that_was_read_before(name: str) -> None:
    folder = SAMPLES / name
    project = load_project(directory=folder, environment={})
    built = {service.name: f"built/{service.name}" for service in project.services.values() if service.build}
    app = msgspec.to_builtins(to_app_spec(project, built))
    found = {"app": app, "warnings": [str(warning) for warning in project.warnings]}
    text = json.dumps(found, indent=2, sort_keys=True).replace(str(folder), "$FOLDER") + "\n"

    golden = folder / "golden.json"
    if os.environ.get("SKEP_WRITE_GOLDEN"):
        golden.write_text(text)

    assert json.loads(text) == json.loads(golden.read_text())

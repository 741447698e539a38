"""The hot update by the command line: bundles that override what runs use."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.house import House, housed

from skep.cli.bundles import pack
from skep.flow.bundles.package import Package


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with housed(tmp_path_factory.mktemp("house")) as made:
        yield made


def bundle(directory: Path, version: str, process: str = "worker", overrides: str = "errand.greet") -> Path:
    """It greets in its own words, in place of the program's flow of that name."""
    files = {
        "bundle.yaml": f"""
bundle: manners
version: "{version}"
steps: [manners.words]
process: {process}
rights: {{overrides: [{overrides}]}}
""",
        "greet.yaml": """
flow: errand.greet
input: {name: str}
steps:
  gate: {wait: signal, with: {name: go}}
  said: {use: words.say, with: {name: $input.name}, after: [gate]}
output: {said: $said}
""",
        "manners/__init__.py": "",
        "manners/words.py": f"""
from skep.flow import Context, step

@step
async def say(cx: Context[object], name: str) -> str:
    return f"{version} {{name}}"
""",
    }
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


def push(house: House, directory: Path, *words: str) -> str:
    """Answers the hash; above it may be what the server, in the same process, wrote to its log."""
    done = house("bundle", "push", str(directory), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def said(house: House, run: str) -> object:
    """Let the run go on; answers what it said."""
    house.until(run, "waiting", "gate")
    assert house("run", "signal", run, "go").returncode == 0
    followed = house("run", "follow", run)
    assert followed.returncode == 0, followed.stderr
    return json.loads(house("run", "show", run, "-o", "json").stdout)["run"]["output"]["said"]


@pytest.mark.parametrize(
    "process", ["worker", pytest.param("own", marks=pytest.mark.root)], ids=["in the worker", "apart"]
)
def test_new_code_takes_over_while_runs_go_on_and_is_taken_back(
    house: House, tmp_path: Path, process: str
) -> None:
    runs = [house.start("errand.greet", "name=Kim")]
    first = push(house, bundle(tmp_path / "1", f"1-{process}", process), "--activate")
    runs.append(house.start("errand.greet", "name=Kim"))
    second = push(house, bundle(tmp_path / "2", f"2-{process}", process))
    house.until(runs[1], "waiting", "gate")

    fates = house("bundle", "preflight", second)
    assert f"{runs[1]}  errand.greet  can be migrated" in fates.stdout
    assert house("bundle", "activate", second[:12]).returncode == 0
    runs.append(house.start("errand.greet", "name=Kim"))
    back = house("bundle", "rollback", "manners")
    assert back.returncode == 0
    assert f"manners 1-{process}" in back.stderr
    runs.append(house.start("errand.greet", "name=Kim"))

    assert [said(house, run) for run in runs] == [
        "old Kim",
        f"1-{process} Kim",
        f"2-{process} Kim",
        f"1-{process} Kim",
    ]
    listed = json.loads(house("bundle", "ls", "-o", "json").stdout)
    assert [one["version"] for one in listed if one["active"]] == [f"1-{process}"]
    assert "words.say" in house("flow", "steps").stdout
    assert first[:12] in house("flow", "ls").stdout
    assert house("bundle", "deactivate", "manners", "--yes").returncode == 0
    assert "words.say" not in house("flow", "steps").stdout


def test_runs_under_way_are_moved_if_they_can_be(house: House, tmp_path: Path) -> None:
    push(house, bundle(tmp_path / "1", "m1"), "--activate")
    run = house.start("errand.greet", "name=Kim")
    house.until(run, "waiting", "gate")
    second = push(house, bundle(tmp_path / "2", "m2"))

    moved = house("bundle", "activate", second, "--migrate")

    assert moved.returncode == 0, moved.stderr
    assert house("run", "signal", run, "go").returncode == 0
    assert house("run", "follow", run).returncode == 0
    assert "m2 Kim" in house("run", "show", run).stdout
    house("bundle", "deactivate", "manners", "--yes")


def test_a_broken_bundle_is_refused_with_every_reason_and_its_line(house: House, tmp_path: Path) -> None:
    broken = bundle(tmp_path, "broken", overrides="")
    (broken / "manners" / "words.py").write_text("import no_such_module\n")
    before = house("bundle", "ls", "-o", "json").stdout

    done = house("bundle", "push", str(broken))

    assert done.returncode == 2
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr
    (broken / "bundle.yaml").write_text('bundle: manners\nversion: "x"\nstep: []\n')
    assert "bundle.yaml:3" in house("bundle", "push", str(broken)).stderr
    assert house("bundle", "push", str(tmp_path / "nothing")).returncode == 2
    assert house("bundle", "ls", "-o", "json").stdout == before


def test_what_may_not_be_overridden_is_said(house: House, tmp_path: Path) -> None:
    done = house("bundle", "push", str(bundle(tmp_path, "bold", overrides="")))

    assert done.returncode == 2
    assert "rights.overrides" in done.stderr


def test_versions_that_nobody_needs_are_forgotten(house: House, tmp_path: Path) -> None:
    for number in range(3):
        push(house, bundle(tmp_path / str(number), f"gc{number}"))

    done = house("bundle", "gc", "--keep", "1")

    assert done.returncode == 0
    assert "manners gc0" in done.stderr
    assert "gc2" in house("bundle", "ls").stdout
    assert house("bundle", "show", "gc0").returncode == 3


def test_what_the_command_packs_has_the_hash_that_the_engine_gives_it(tmp_path: Path) -> None:
    directory = bundle(tmp_path, "1")
    (directory / "manners" / "__pycache__").mkdir()
    (directory / "manners" / "__pycache__" / "words.pyc").write_bytes(b"x")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("x")
    script = directory / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)

    assert Package.of_content(pack(directory)).hash == Package.of_directory(directory).hash

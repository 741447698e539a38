"""A command imports what it uses: most of the time that a short one takes is that of its imports."""

import subprocess

import pytest
from tests.cli.conftest import Skep
from tests.cli.test_commands import running, shop

__all__ = ["running", "shop"]

HEAVY = {
    *("hpack", "httpx2", "urllib3", "requests", "websockets"),
    *("click.core", "rich", "pygments", "markdown_it"),
    *("jsonschema", "referencing", "difflib"),
    *("cryptography", "sqlalchemy", "litestar", "structlog"),
}
OF_OTHERS = {
    *("skep.control", "skep.store", "skep.flow", "skep.trust", "skep.main"),
    *("skep.cli.releases", "skep.cli.rollouts", "skep.cli.runs", "skep.cli.exec", "skep.cli.server"),
}

OF_HELP = {"rich"}
LISTING = {"skep.cli.failures", "skep.cli.output"}


def imported(done: "subprocess.CompletedProcess[str]") -> set[str]:
    """The modules that it says it imported, and the packages that they are in."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = [line.rpartition("|")[2].strip() for line in lines]
    return {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}


@pytest.mark.parametrize(
    "words",
    [["apply"], ["plan"], ["config"], ["ps"], ["logs", "shop"], ["apps"], ["whoami"], ["--version"]],
    ids=lambda words: words[0],
)
def test_a_command_imports_nothing_that_it_does_not_need(running: Skep, words: list[str]) -> None:
    running.extra = {"PYTHONPROFILEIMPORTTIME": "1"}

    done = running.process(*words)

    assert done.returncode == 0, done.stderr
    found = imported(done)
    assert "skep.cli.failures" in found
    assert found & (HEAVY | OF_OTHERS) == set()


def test_the_listing_of_commands_needs_none_of_them(skep: Skep) -> None:
    skep.extra = {"PYTHONPROFILEIMPORTTIME": "1"}

    done = skep.process("--help")

    assert "Make the app as its Compose file says." in done.stdout
    found = imported(done)
    assert not {name for name in found if name.startswith("skep.cli.")} - LISTING
    assert not found & (HEAVY - OF_HELP | {"rich.markdown"})


def test_only_what_touches_a_compose_file_reads_yaml(running: Skep) -> None:
    running.extra = {"PYTHONPROFILEIMPORTTIME": "1"}

    found = imported(running.process("ps"))

    assert not found & {"yaml", "skep.compose", "skep.documents"}


def test_a_mistake_in_a_compose_file_brings_what_explains_it(running: Skep) -> None:
    running.extra = {"PYTHONPROFILEIMPORTTIME": "1"}
    (running.directory / "compose.yaml").write_text("services: {web: {imag: x}}")

    done = running.process("config")

    assert "did you mean 'image'?" in done.stderr
    assert "jsonschema" in imported(done)

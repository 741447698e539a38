"""The tutorial is followed word for word."""

from pathlib import Path

import pytest
from tests.docs import tutorial
from tests.docs.conftest import ROOT, Newcomer
from tests.docs.tutorial import Command

TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_newcomer_can_follow_the_tutorial_word_for_word(newcomer: Newcomer) -> None:
    for command in tutorial.read(TUTORIAL):
        done = newcomer.type(command.line)

        assert done.returncode == 0, f"$ {command.line}\n{done.stdout}"
        assert not command.missing(done.stdout), f"$ {command.line}\n{done.stdout}"


def test_blocks_are_read_as_commands_with_what_they_promise(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n```console\n$ skep ps\n… web-0 … running …\n$ skep apps\n```\n```sh\nmake up\n```\n"
    )

    commands = tutorial.read(page)

    assert commands == [Command("skep ps", ("… web-0 … running …",)), Command("skep apps", ())]


def test_a_promise_is_kept_whatever_the_spacing_and_what_stands_around_it() -> None:
    command = Command("skep ps", ("… web-0 … running …", "done"))

    missing = command.missing("NAME   STATE\nweb-0  10.1.2.3   running  1m\nweb-1  stopped\n")

    assert missing == ["done"]


def test_words_of_different_lines_keep_no_promise() -> None:
    command = Command("skep ps", ("… web-0 … running …",))

    assert command.missing("web-0 stopped\nweb-1 running\n")


def test_every_file_that_the_tutorial_mentions_exists() -> None:
    words = TUTORIAL.read_text().replace("`", " ").split()

    mentioned = {word.strip("().,") for word in words if word.startswith("examples/")}

    assert [name for name in mentioned if not (ROOT / name).exists()] == ["examples/shop/more.yaml"]

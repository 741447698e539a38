"""The reference page, and that every command explains itself."""

from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

from skep.cli.app import build, leave_to_command
from skep.cli.failures import Exit
from skep.cli.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def commands(app: App, *path: str) -> Iterator[tuple[str, App]]:
    for name in app:
        if name.startswith("-"):
            continue
        yield " ".join([*path, name]), app[name]
        yield from commands(app[name], *path, name)


def test_the_page_is_what_the_commands_say() -> None:
    """Refresh it with `python -m skep.cli.reference > docs/reference/cli.md`."""
    assert PAGE.read_text() == markdown()


def test_every_command_has_an_example() -> None:
    without = [
        name
        for name, app in commands(build())
        if app.default_command is not None and "Example" not in (app.default_command.__doc__ or "")
    ]

    assert without == []


def test_the_listing_and_the_commands_agree() -> None:
    listing, whole = build(listing=True), build()

    assert list(listing) == list(whole)


def test_every_exit_code_has_one_meaning() -> None:
    page = PAGE.read_text()

    assert all(f"| {code.value} |" in page for code in Exit)


def test_options_after_the_replica_belong_to_the_command() -> None:
    assert leave_to_command(["exec", "a/b", "ls", "-l"]) == ["exec", "a/b", "--", "ls", "-l"]
    assert leave_to_command(["exec", "-it", "-e", "A=1", "a/b", "sh", "-o"]) == [
        *["exec", "-it", "-e", "A=1", "a/b", "--", "sh", "-o"]
    ]
    assert leave_to_command(["exec", "a/b", "-t", "--", "sh"]) == ["exec", "a/b", "-t", "--", "sh"]
    assert leave_to_command(["exec", "a/b"]) == ["exec", "a/b"]
    assert leave_to_command(["ps", "a"]) == ["ps", "a"]

"""Tables as a terminal gets them, and a pipe."""

from skep.cli.tables import drawn, plain

HEADS = ["NAME", "STATE", "WHY"]


def test_states_are_coloured_and_what_is_copied_is_whole() -> None:
    rows = [["shop/web-0", "running", "x" * 300], ["shop/db-0", "exited (1)", ""]]

    lines = list(drawn(rows, HEADS, colour=True))

    assert lines == [
        "\x1b[1mNAME\x1b[0m        \x1b[1mSTATE\x1b[0m       \x1b[1mWHY\x1b[0m",
        "shop/web-0  \x1b[32mrunning\x1b[0m     " + "x" * 300,
        "shop/db-0   \x1b[2mexited (1)\x1b[0m",
    ]


def test_without_colours_only_the_heads_stand_out() -> None:
    lines = list(drawn([["web", "running", "-"]], HEADS, colour=False))

    assert lines[1] == "web   running  -"


def test_columns_are_straight_whatever_is_written_in_them() -> None:
    rows = [["蜂", "0 → 1", "-"], ["e\u0301", "-", "two\nlines"]]

    lines = list(drawn(rows, HEADS, colour=False))

    assert lines[1:] == [
        "蜂    0 → 1  -",
        "e\u0301     -      two",
        "             lines",
    ]


def test_a_pipe_gets_no_colours() -> None:
    lines = list(plain([["web", "running", "-"]], HEADS))

    assert lines == ["NAME  STATE    WHY", "web   running  -"]

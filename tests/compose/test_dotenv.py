"""Env files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.compose.dotenv import EnvFileError, parse_env, parse_raw_env


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("A=1\n\n# note\nexport B=2", {"A": "1", "B": "2"}),
        ("A = spaced  \nB: yaml", {"A": "spaced", "B": "yaml"}),
        ("A=1 # note\nB=#fff\nC=a#b\nD= # nothing", {"A": "1", "B": "#fff", "C": "a#b", "D": ""}),
        ("A='$OUT # not \\n'\nB=\"$OUT # \\t|\\$OUT\" # note", {"A": "$OUT # not \\n", "B": "out # \t|$OUT"}),
        ('A=\'it\\\'s\'\nB="say \\"hi\\""', {"A": "it's", "B": 'say "hi"'}),
        ("A='line 1\nline 2'\nB=\"x\ny\"", {"A": "line 1\nline 2", "B": "x\ny"}),
        ("A=1\nB=${A}2\nC=${NO:-d}", {"A": "1", "B": "12", "C": "d"}),
        ("OUT\nNOT_THERE\nA=", {"OUT": "out", "A": ""}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=a=b", {"A": "a=b"}),
        ("", {}),
    ],
)
def test_the_syntax_of_compose(text: str, result: dict[str, str]) -> None:
    assert parse_env(text, {"OUT": "out"}) == result


def test_what_is_outside_wins_in_interpolation() -> None:
    assert parse_env("A=1\nB=$A", {"A": "outside"}) == {"A": "1", "B": "outside"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\n=2", 2), ("A=1\nB='open", 2), ('A="x" y', 1), ("A=${", 1), ("A=1\n\nwhat is this", 3)],
)
def test_other_text_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(EnvFileError) as caught:
        parse_env(text, {})

    assert caught.value.line == line


def test_raw_files_are_taken_as_they_are() -> None:
    assert parse_raw_env("A='$B' # x\n#c\nB = 1") == {"A": "'$B' # x", "B": " 1"}
    with pytest.raises(EnvFileError):
        parse_raw_env("A")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_env(text, {})
    except EnvFileError as error:
        assert error.line >= 1  # noqa: PT017


NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
PLAIN = st.text(alphabet=st.characters(codec="ascii", exclude_characters="\r'\\"))


@given(st.dictionaries(NAMES, PLAIN))
def test_single_quoted_values_read_as_written(values: dict[str, str]) -> None:
    text = "\n".join(f"{key}='{value}'" for key, value in values.items())

    assert parse_env(text, {}) == values

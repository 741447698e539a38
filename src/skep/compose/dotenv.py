"""Env files: `.env` of the project and `env_file` of a service.

The syntax is Compose's (https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/,
"Env file syntax"): blank lines and `#` comments; `export`; `KEY=value`, `KEY: value`, a bare `KEY` that is
passed through; single quotes are literal, double quotes know escapes, both may span lines; unquoted and
double-quoted values are interpolated.  (python-dotenv forgets how a value was quoted, so it cannot follow
these rules; see docs/decisions/0003-compose-parsing.md.)
"""

import re
from collections import ChainMap
from collections.abc import Mapping

from skep.compose.interpolation import InterpolationError, Variables

_SKIPPED = re.compile(r"(?:\s+|#[^\n]*)*")
_KEY = re.compile(r"(?:export[ \t]+)?([\w.\-\[\]]+)[ \t]*(?:[=:][ \t]*|(?=\r?\n|$))")
_BARE = re.compile(r"[=:][ \t]*$")
_SINGLE = re.compile(r"'((?:\\.|[^'\\])*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_REST = re.compile(r"[ \t]*(?:#[^\n]*)?\r?(?:\n|$)")
_COMMENT = re.compile(r"\s#")
_QUOTED = {"'": _SINGLE, '"': _DOUBLE}
_ESCAPE = re.compile(r"\\([abcfnrtv\"'$\\]|0[0-7]{1,3})")
_ESCAPES = {"a": "\a", "b": "\b", "c": "c", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "$": "$$"}


class EnvFileError(ValueError):
    """The env file cannot be read; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def parse_env(text: str, outside: Mapping[str, str]) -> dict[str, str]:
    """The variables of an env file in order.

    `outside` comes first when values are interpolated and gives bare keys their value; a bare key that has
    none there is left out.

    Raises:
        EnvFileError: a line that is no assignment, an open quote, or an interpolation that fails.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    result: dict[str, str] = {}
    variables = Variables(ChainMap(dict(outside), result))
    at = _end(_SKIPPED, text, 0)
    while at < len(text):
        at = _assignment(text, at, variables, result)
        at = _end(_SKIPPED, text, at)
    return result


def parse_raw_env(text: str) -> dict[str, str]:
    """`format: raw`: `KEY=value` line by line, nothing quoted, nothing interpolated.

    Raises:
        EnvFileError: a line without `=`.
    """
    result: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise EnvFileError(f"{line[:40]!r} is not KEY=value", number)
        result[key.strip()] = value
    return result


def _assignment(text: str, at: int, variables: Variables, result: dict[str, str]) -> int:
    key = _KEY.match(text, at)
    if not key:
        raise EnvFileError(f"{text[at : at + 40].splitlines()[0]!r} is not KEY=value", _line(text, at))
    if not _BARE.search(key[0]):
        if (value := variables.find(key[1])) is not None:
            result[key[1]] = value
        return key.end()
    try:
        result[key[1]], end = _value(text, key.end(), variables)
    except InterpolationError as error:
        raise EnvFileError(f"{key[1]}: {error}", _line(text, at)) from error
    return end


def _value(text: str, at: int, variables: Variables) -> tuple[str, int]:
    quote = text[at : at + 1]
    if quote not in _QUOTED:
        return _unquoted(text, at, variables)
    quoted = _QUOTED[quote].match(text, at)
    if not quoted:
        raise EnvFileError(f"the quote {quote} is never closed", _line(text, at))
    rest = _REST.match(text, quoted.end())
    if not rest:
        raise EnvFileError("text follows the closing quote", _line(text, quoted.end()))
    if quote == "'":
        return quoted[1].replace("\\'", "'"), rest.end()
    return variables.substitute(_ESCAPE.sub(_unescape, quoted[1])), rest.end()


def _unquoted(text: str, at: int, variables: Variables) -> tuple[str, int]:
    """To the end of the line or to a `#` that follows a space: `#fff` is a value, ` # note` is none."""
    end = _position(text, "\n", at)
    value = text[at:end]
    if text[at - 1] in " \t":
        value = " " + value
    return variables.substitute(_COMMENT.split(value, maxsplit=1)[0].strip()), end


def _position(text: str, what: str, at: int) -> int:
    found = text.find(what, at)
    return len(text) if found < 0 else found


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    return chr(int(escape, 8) & 0xFF) if escape[0] == "0" else _ESCAPES.get(escape, escape)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at

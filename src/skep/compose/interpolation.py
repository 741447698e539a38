"""`${VARIABLE}` in Compose files and env files.

The forms are those of https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md; a `$` that
begins none of them stays as it is.
"""

import re
from collections.abc import Callable, Mapping

import msgspec

from skep.compose.problems import Problems
from skep.documents import Node

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATOR = re.compile(r":?[-?+]")
DEEPEST = 20
MOST_TEXT = 16 * 1024 * 1024
"""Characters that all substitutions of one project may produce together."""


class InterpolationError(ValueError):
    """The text has a `${` that cannot be substituted."""


class Variables(msgspec.Struct):
    """Where values come from; remembers what was asked for in vain."""

    values: Mapping[str, str]
    unset: Callable[[str], None] = msgspec.field(default=lambda name: None)
    produced: int = 0

    def find(self, name: str) -> str | None:
        return self.values.get(name)

    def substitute(self, text: str) -> str:
        """The text with every variable replaced; values themselves are not looked into again.

        Raises:
            InterpolationError: a `${` that is malformed or too deep, a `:?` that is not satisfied, or
                too much text.
        """
        if "$" not in text:
            return text
        result = self._expand(text, 0)
        self.produced += len(result)
        if self.produced > MOST_TEXT:
            raise InterpolationError("variables expand to too much text")
        return result

    def _expand(self, text: str, depth: int) -> str:
        if depth > DEEPEST:
            raise InterpolationError(f"variables are nested deeper than {DEEPEST} levels")
        parts: list[str] = []
        length = start = 0
        while (dollar := text.find("$", start)) >= 0:
            replacement, end = self._at(text, dollar + 1, depth)
            parts += (text[start:dollar], replacement)
            length += len(parts[-2]) + len(replacement)
            if length > MOST_TEXT:
                raise InterpolationError("variables expand to too much text")
            start = end
        return "".join([*parts, text[start:]])

    def _at(self, text: str, start: int, depth: int) -> tuple[str, int]:
        """What the `$` before `start` becomes, and where the text goes on."""
        following = text[start : start + 1]
        if following == "$":
            return "$", start + 1
        if following == "{":
            end = _closing(text, start + 1)
            return self._braced(text[start + 1 : end], depth), end + 1
        name = _NAME.match(text, start)
        return (self._value(name[0]), name.end()) if name else ("$", start)

    def _braced(self, body: str, depth: int) -> str:
        name = _NAME.match(body)
        if not name:
            raise InterpolationError(f"${{{body[:40]}}} is not a variable; write $$ for a plain $")
        if name.end() == len(body):
            return self._value(name[0])
        operator = _OPERATOR.match(body, name.end())
        if not operator:
            raise InterpolationError(f"${{{body[:40]}}} is not supported: use :- - :? ? :+ or +")
        return self._operated(name[0], operator[0], body[operator.end() :], depth)

    def _operated(self, name: str, operator: str, word: str, depth: int) -> str:
        value = self.find(name)
        usable = value is not None and (value != "" or operator[0] != ":")
        if operator[-1] == "+":
            return self._expand(word, depth + 1) if usable else ""
        if usable:
            return value or ""
        if operator[-1] == "-":
            return self._expand(word, depth + 1)
        reason = self._expand(word, depth + 1)
        raise InterpolationError(
            f"required variable {name} is missing a value{reason and ': ' + reason[:200]}"
        )

    def _value(self, name: str) -> str:
        value = self.find(name)
        if value is None:
            self.unset(name)
        return value or ""


def _closing(text: str, start: int) -> int:
    """The index of the `}` that closes the `{` before `start`."""
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return index
    raise InterpolationError(f"{text[start - 2 : start + 30]!r} has no closing brace; write $$ for a plain $")


def interpolate(root: Node, values: Mapping[str, str], problems: Problems) -> Node:
    """The tree with every text value substituted.  Keys are not; shared nodes are visited once.

    Text that cannot be substituted, or that holds NUL bytes, is recorded as an error.
    """
    return _Tree(Variables(values), problems).visit(root, "")


class _Tree(msgspec.Struct):
    variables: Variables
    problems: Problems
    seen: dict[int, Node] = msgspec.field(default_factory=dict)

    def visit(self, node: Node, path: str) -> Node:
        if id(node.value) in self.seen and isinstance(node.value, dict | list):
            return Node(self.seen[id(node.value)].value, node.position, node.tag)
        value = node.value
        if isinstance(value, dict):
            self._check_keys(value, path)
            made = {key: self.visit(child, f"{path}.{key}" if path else key) for key, child in value.items()}
            return self._remember(node, Node(made, node.position, node.tag))
        if isinstance(value, list):
            items = [self.visit(child, f"{path}[{index}]") for index, child in enumerate(value)]
            return self._remember(node, Node(items, node.position, node.tag))
        if isinstance(value, str) and "\0" in value:
            self.problems.error(node.position, f"{path}: contains a NUL byte")
        if isinstance(value, str) and "$" in value:
            return Node(self._text(value, node, path), node.position, node.tag)
        return node

    def _check_keys(self, value: dict[str, Node], path: str) -> None:
        for key, child in value.items():
            if "\0" in key:
                self.problems.error(child.position, f"{path}: a key contains a NUL byte")

    def _remember(self, node: Node, made: Node) -> Node:
        self.seen[id(node.value)] = made
        return made

    def _text(self, text: str, node: Node, path: str) -> str:
        def unset(name: str) -> None:
            self.problems.warn(node.position, f"{path}: variable {name} is not set; it is taken as empty")

        self.variables.unset = unset
        try:
            return self.variables.substitute(text)
        except InterpolationError as error:
            self.problems.error(node.position, f"{path}: {error}")
            return text

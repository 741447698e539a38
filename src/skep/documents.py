"""YAML documents that remember where every value stood.

Used for Compose files and flow definitions: plain data out (`load`), or a tree whose every node knows its
line (`load_tree`), so that any error can name it.  Hostile input is refused before it costs anything: size,
depth, and the number of values that aliases may expand to are limited ("billion laughs"), a key may not be
given twice, and no tag ever makes an object.

Scalars follow YAML 1.2 as the Compose implementation reads them (go-yaml): `yes`, `on`, `22:22` and
`2024-01-01` are text; `0o17` and `017` are octal, `1_000` is a number.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import yaml

try:
    from yaml import CSafeLoader as _Loader  # libyaml: ten times faster
except ImportError:  # pragma: no cover - a PyYAML built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document, e.g. ("services", "web", "ports", 0)."""

Value = str | int | float | bool | None | dict[str, "Node"] | list["Node"]


class Limits(msgspec.Struct, frozen=True):
    bytes: int = 4 * 1024 * 1024
    depth: int = 64
    nodes: int = 200_000


class Position(msgspec.Struct, frozen=True):
    """A place in a file; prints as `compose.yaml:12`.  Lines count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class DocumentError(ValueError):
    """The document cannot be read; `position` says where."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(f"{position}: {message}")
        self.reason = message
        self.position = position


class Node(msgspec.Struct, frozen=True):
    """A value and its place.  In a mapping a node stands where its key stands.

    `tag` is one of the tags the caller of `load_tree` allowed, otherwise empty.  Nodes reached through an
    alias are shared: nobody may change one.
    """

    value: Value
    position: Position
    tag: str = ""

    def plain(self) -> Any:
        """The value made of dict, list, str, int, float, bool and None."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class Document(msgspec.Struct, frozen=True):
    """`data` is made of dict, list, str, int, float, bool and None."""

    file: str
    data: Any
    positions: dict[Path, Position]

    def where(self, path: Path) -> Position:
        """The position of the value at `path`, or of its nearest parent that has one."""
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, Position(self.file, 1))


def load(text: str, file: str, limits: Limits | None = None) -> Document:
    """Read one YAML document into plain data.

    Raises:
        DocumentError: no YAML, several documents, a key given twice, an unknown tag, or beyond a limit.
    """
    root = load_tree(text, file, limits)
    return Document(file, root.plain(), dict(_positions(root, ())))


def load_tree(text: str, file: str, limits: Limits | None = None, tags: frozenset[str] = frozenset()) -> Node:
    """Read one YAML document into nodes; an empty one is a node of None.

    `tags` are local tags ("!reset") to keep on the nodes; every other tag beyond YAML's own scalars,
    sequences and mappings is refused.

    Raises:
        DocumentError: as for `load`.
    """
    limits = limits or Limits()
    start = Position(file, 1)
    _check_text(text, file, limits)
    try:
        return _Composer(file, limits, tags, yaml.parse(text, Loader=_Loader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else start
        raise DocumentError(error.problem or "not valid YAML", position) from error
    except yaml.YAMLError as error:
        raise DocumentError(f"not valid YAML: {' '.join(str(error).split())}", start) from error


def _positions(node: Node, path: Path) -> Iterator[tuple[Path, Position]]:
    yield path, node.position
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _positions(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _positions(child, (*path, index))


_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The complement of YAML's printable characters (YAML 1.2, production 1)."""


def _check_text(text: str, file: str, limits: Limits) -> None:
    if bad := _FORBIDDEN.search(text.removeprefix("\ufeff")):
        line = text.count("\n", 0, bad.start()) + 1
        raise DocumentError(f"the character U+{ord(bad[0]):04X} is not allowed in YAML", Position(file, line))
    if len(text.encode()) > limits.bytes:
        raise DocumentError(f"larger than {limits.bytes} bytes", Position(file, 1))


class _Composer(msgspec.Struct):
    """Builds nodes from parser events, so that depth and count are checked before anything grows."""

    file: str
    limits: Limits
    tags: frozenset[str]
    events: Iterator[yaml.Event]
    anchors: dict[str, tuple[Node, int, int]] = msgspec.field(default_factory=dict)
    """Of each anchor: its node, how many values it expands to, and how deep it is."""
    open: set[str] = msgspec.field(default_factory=set)
    nodes: int = 0

    def document(self) -> Node:
        root = Node(None, Position(self.file, 1))
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise DocumentError("more than one document; write one file for each", self._at(event))
                root, _ = self._node(next(self.events), 0)
        return root

    def _at(self, event: Any) -> Position:
        return Position(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _count(self, nodes: int, position: Position) -> None:
        self.nodes += nodes
        if self.nodes > self.limits.nodes:
            raise DocumentError(f"more than {self.limits.nodes} values after aliases are expanded", position)

    def _node(self, event: Any, depth: int) -> tuple[Node, int]:
        """The node that begins with this event, and the height of the tree below it."""
        position = self._at(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, position, depth)
        self._check_depth(depth, position)
        before = self.nodes
        self._count(1, position)
        if event.anchor:
            self.open.add(event.anchor)
        node, height = self._content(event, position, depth)
        if event.anchor:
            self.open.discard(event.anchor)
            self.anchors[event.anchor] = node, self.nodes - before, height
        return node, height

    def _alias(self, event: yaml.AliasEvent, position: Position, depth: int) -> tuple[Node, int]:
        if event.anchor in self.open:
            raise DocumentError(f"the alias *{event.anchor} contains itself", position)
        if event.anchor not in self.anchors:
            raise DocumentError(f"found undefined alias *{event.anchor}", position)
        node, nodes, height = self.anchors[event.anchor]
        self._check_depth(depth + height, position)
        self._count(nodes, position)
        return node, height

    def _check_depth(self, depth: int, position: Position) -> None:
        if depth > self.limits.depth:
            raise DocumentError(f"nested deeper than {self.limits.depth} levels", position)

    def _content(self, event: yaml.Event, position: Position, depth: int) -> tuple[Node, int]:
        tag = self._tag(event, position)
        if isinstance(event, yaml.ScalarEvent):
            return Node(_scalar(event, position), position, tag), 0
        if isinstance(event, yaml.SequenceStartEvent):
            items, height = self._sequence(depth)
            return Node(items, position, tag), height
        entries, height = self._mapping(depth)
        return Node(entries, position, tag), height

    def _tag(self, event: Any, position: Position) -> str:
        tag: str | None = event.tag
        if tag is None or tag == "!" or tag in _STANDARD_TAGS[type(event)]:
            return ""
        if tag in self.tags:
            return tag
        raise DocumentError(f"the tag {_short_tag(tag)} is not supported here", position)

    def _sequence(self, depth: int) -> tuple[list[Node], int]:
        items: list[Node] = []
        height = 0
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item, below = self._node(event, depth + 1)
            items.append(item)
            height = max(height, below + 1)
        return items, height

    def _mapping(self, depth: int) -> tuple[dict[str, Node], int]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        height = 0
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, position, merge = self._key(event)
            value, below = self._node(next(self.events), depth + 1)
            height = max(height, below + 1)
            if merge:
                merged = _merge(value, position) | merged
                continue
            if key in own:
                raise DocumentError(f"key {key[:80]!r} is given twice", position)
            own[key] = msgspec.structs.replace(value, position=position)
        return merged | own, height

    def _key(self, event: Any) -> tuple[str, Position, bool]:
        position = self._at(event)
        if isinstance(event, yaml.ScalarEvent):
            # Keys stay as written: `on:` is "on", `80:` is "80".
            node, _ = self._node(event, 0)
            merge = event.value == "<<" and event.implicit[0]
            return str(event.value), node.position, bool(merge)
        if isinstance(event, yaml.AliasEvent):
            node, _ = self._alias(event, position, 0)
            if isinstance(node.value, str):
                return node.value, position, False
        raise DocumentError("a key must be plain text", position)


def _merge(node: Node, position: Position) -> dict[str, Node]:
    """`<<`: one mapping or a list of them, of which the first wins (https://yaml.org/type/merge.html)."""
    result: dict[str, Node] = {}
    for source in node.value if isinstance(node.value, list) else [node]:
        if not isinstance(source.value, dict):
            raise DocumentError("'<<' takes a mapping or a list of mappings", position)
        result = source.value | result
    return result


_YAML = "tag:yaml.org,2002:"
_STANDARD_TAGS: dict[type, frozenset[str]] = {
    yaml.ScalarEvent: frozenset(_YAML + name for name in ("str", "int", "float", "bool", "null")),
    yaml.SequenceStartEvent: frozenset({_YAML + "seq"}),
    yaml.MappingStartEvent: frozenset({_YAML + "map"}),
}

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(?:0b[01]+|0o[0-7]+|0[0-7]+|0x[0-9a-fA-F]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_NUMBER = 64
"""What is longer is text: nobody means it as a number, and converting it costs quadratic time."""


def _scalar(event: yaml.ScalarEvent, position: Position) -> Value:
    text: str = event.value
    if event.tag is None or event.tag not in _STANDARD_TAGS[yaml.ScalarEvent]:
        return resolve(text) if event.implicit[0] or (event.tag and not event.style) else text
    wanted = event.tag.removeprefix(_YAML)
    value = text if wanted == "str" else resolve(text)
    if not _TYPES[wanted](value):
        raise DocumentError(f"{text[:80]!r} is not of the type !!{wanted}", position)
    return float(value) if wanted == "float" and isinstance(value, int) else value


def resolve(text: str) -> str | int | float | bool | None:
    """What a plain scalar means."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if len(text) > _LONGEST_NUMBER:
        return text
    digits = text.replace("_", "") if text[:1] != "_" else text
    if _INT.fullmatch(digits):
        return _integer(digits)
    if _FLOAT.fullmatch(digits) or _NOT_FINITE.fullmatch(digits):
        return float(digits.replace(".i", "i").replace(".I", "I").replace(".n", "n").replace(".N", "N"))
    return text


def _integer(digits: str) -> int:
    sign, magnitude = (-1, digits[1:]) if digits[0] == "-" else (1, digits.removeprefix("+"))
    if re.fullmatch("0[0-7]+", magnitude):
        return sign * int(magnitude, 8)
    return sign * int(magnitude, 0)


_TYPES: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _short_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_YAML) if tag.startswith(_YAML) else tag

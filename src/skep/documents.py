"""YAML documents that remember where every value stood.

Used for Compose files and flow definitions: plain data out, and for any path into it the line to name in an
error.  Hostile input is refused before it costs anything: size, depth, and the number of nodes that aliases
may expand to are limited ("billion laughs"), and a key may not be given twice.
"""

from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document, e.g. ("services", "web", "ports", 0)."""


@dataclass(frozen=True)
class Limits:
    bytes: int = 4 * 1024 * 1024
    depth: int = 64
    nodes: int = 200_000


@dataclass(frozen=True)
class Position:
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


@dataclass(frozen=True)
class Document:
    """`data` is made of dict, list, str, int, float, bool and None."""

    file: str
    data: Any
    positions: dict[Path, Position]

    def where(self, path: Path) -> Position:
        """The position of the value at `path`, or of its nearest parent that has one."""
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, Position(self.file, 1))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without dates: `2024-01-01` stays text, as Compose and flows expect."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(text: str, file: str, limits: Limits | None = None) -> Document:
    """Read one YAML document.

    Raises:
        DocumentError: no YAML, several documents, a key given twice, or beyond a limit.
    """
    limits = limits or Limits()
    if len(text.encode()) > limits.bytes:
        raise DocumentError(f"larger than {limits.bytes} bytes", Position(file, 1))
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(file, None, {(): Position(file, 1)})
        reader = _Reader(file, limits, loader)
        return Document(file, reader.read(node, (), 0), reader.positions)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1)
        raise DocumentError(error.problem or "not valid YAML", position) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"not valid YAML: {error}", Position(file, 1)) from error
    finally:
        loader.dispose()


class _Reader:
    def __init__(self, file: str, limits: Limits, loader: _Loader) -> None:
        self.file = file
        self.limits = limits
        self.loader = loader
        self.positions: dict[Path, Position] = {}
        self.nodes = 0
        self.open: set[int] = set()

    def read(self, node: yaml.Node, path: Path, depth: int) -> Any:
        position = Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)
        self.positions.setdefault(path, position)
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise DocumentError(f"more than {self.limits.nodes} values after aliases are expanded", position)
        if depth > self.limits.depth:
            raise DocumentError(f"nested deeper than {self.limits.depth} levels", position)
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node)
        if id(node) in self.open:
            raise DocumentError("an alias contains itself", position)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
            return self._mapping(node, path, depth)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: Path, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merge(value_node, path, depth)
                continue
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            position = Position(self.file, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if key is None:
                raise DocumentError("a key must be plain text", position)
            if key in own:
                raise DocumentError(f"key {key!r} is given twice", position)
            self.positions[(*path, key)] = position
            own[key] = self.read(value_node, (*path, key), depth + 1)
        return merged | own

    def _merge(self, node: yaml.Node, path: Path, depth: int) -> dict[str, Any]:
        """`<<`: one mapping or a list of them, of which the first wins."""
        position = Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)
        values = self.read(node, (*path, "<<"), depth + 1)
        result: dict[str, Any] = {}
        for value in reversed(values if isinstance(values, list) else [values]):
            if not isinstance(value, dict):
                raise DocumentError("'<<' takes a mapping", position)
            result |= value
        return result

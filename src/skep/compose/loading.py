"""From Compose files to one canonical tree: read, interpolate, check, write long, extend, include, merge."""

import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from skep.compose.canonical import canonical
from skep.compose.cursor import Cursor
from skep.compose.dotenv import EnvFileError, parse_env
from skep.compose.interpolation import interpolate
from skep.compose.merge import TAGS, merge, strip
from skep.compose.paths import UnreadableFile, absolute, decode, is_file, read_text, resolve_paths
from skep.compose.problems import Problems
from skep.compose.shape import check_shape
from skep.documents import DocumentError, Limits, Node, Position, load_tree

LIMITS = Limits(bytes=2 * 1024 * 1024, depth=48, nodes=50_000)
MOST_FILES = 100
STDIN = Path("-")
SECTIONS = ("services", "networks", "volumes", "configs", "secrets")

Origin = tuple[Path, str]
"""A service in a file."""


class Loader(msgspec.Struct):
    """Loads the files of one project; `root` shortens file names in messages."""

    environment: Mapping[str, str]
    root: Path
    problems: Problems
    loaded: int = 0
    including: list[Path] = msgspec.field(default_factory=list)

    def read(self, path: Path, named_at: Position | None = None) -> Node:
        """The file as written; `named_at` is where another file names it.

        Raises:
            ComposeError: it cannot be read or is no YAML mapping.
        """
        name = self.name(path)
        self.loaded += 1
        tree = Node(None, Position(name, 1))
        if self.loaded > MOST_FILES:
            self.problems.error(tree.position, f"more than {MOST_FILES} files are included or extended")
            self.problems.check()
        try:
            text = _stdin() if path == STDIN else read_text(path, LIMITS.bytes)
            tree = load_tree(text, name, LIMITS, TAGS)
        except UnreadableFile as error:
            self.problems.error(named_at or tree.position, str(error))
        except DocumentError as error:
            self.problems.error(error.position, error.reason)
        else:
            self._check_mapping(tree)
        self.problems.check()
        return tree

    def _check_mapping(self, tree: Node) -> None:
        if tree.value is None:
            self.problems.error(tree.position, "the file is empty")
        elif not isinstance(tree.value, dict):
            self.problems.error(tree.position, "must be a mapping with a key 'services'")

    def name(self, path: Path) -> str:
        """The file as people see it: from the project directory if it is inside."""
        if path == STDIN:
            return "<stdin>"
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def merged(self, trees: Sequence[tuple[Path, Node]], base: Path, environment: Mapping[str, str]) -> Node:
        """The files as one tree without tags, services extended, other projects included."""
        result = Node({}, Position(self.name(trees[0][0]), 1))
        for path, tree in trees:
            file = self._prepare(tree, base, environment)
            file = _Extender(self, environment).extend(file, path)
            result = strip(merge(result, file)) or result
        return self._include(result, base, environment)

    def _prepare(self, tree: Node, base: Path, environment: Mapping[str, str]) -> Node:
        """Any file before it meets others: canonical, with absolute paths, tags still on it."""
        tree = interpolate(tree, environment, self.problems)
        self.problems.check()
        check_shape(strip(tree) or tree, self.problems)
        self.problems.check()
        tree = canonical(tree, self.problems)
        self.problems.check()
        return resolve_paths(tree, base, environment)

    def prepare_file(self, path: Path, environment: Mapping[str, str], named_at: Position) -> Node:
        return self._prepare(self.read(path, named_at), path.parent, environment)

    def _include(self, tree: Node, base: Path, environment: Mapping[str, str]) -> Node:
        """https://github.com/compose-spec/compose-spec/blob/main/14-include.md"""
        for entry in Cursor(tree, "", self.problems).get("include").items():
            tree = self._import(tree, self._included(entry, base, environment))
        return tree

    def _included(self, entry: Cursor, base: Path, environment: Mapping[str, str]) -> Node:
        paths = [absolute(text, base, environment) for text in entry.get("path").texts()]
        if not paths:
            entry.error("path is missing")
            self.problems.check()
        if paths[0] in self.including:
            chain = " → ".join(self.name(path) for path in [*self.including, paths[0]])
            entry.error(f"the file includes itself: {chain}")
            self.problems.check()
        directory = paths[0].parent
        if text := entry.get("project_directory").text():
            directory = absolute(text, base, environment)
        defaults = self._include_env(entry, base, directory, environment)
        self.including.append(paths[0])
        trees = [(path, self.read(path, entry.position)) for path in paths]
        result = self.merged(trees, directory, ChainMap(dict(environment), defaults))
        self.including.pop()
        return result

    def _include_env(
        self, entry: Cursor, base: Path, directory: Path, environment: Mapping[str, str]
    ) -> dict[str, str]:
        files = [absolute(text, base, environment) for text in entry.get("env_file").texts()]
        if not files and is_file(directory / ".env"):
            files = [directory / ".env"]
        return self.env_files(
            [file for file in files if file != Path("/dev/null")], environment, entry.position
        )

    def env_files(
        self, files: Sequence[Path], environment: Mapping[str, str], position: Position | None = None
    ) -> dict[str, str]:
        """The variables of several env files; later files win.  Raises ComposeError."""
        result: dict[str, str] = {}
        for file in files:
            at = Position(self.name(file), 1)
            try:
                result |= parse_env(read_text(file), ChainMap(dict(environment), result))
            except EnvFileError as error:
                self.problems.error(Position(at.file, error.line), str(error))
            except UnreadableFile as error:
                self.problems.error(position or at, str(error))
        self.problems.check()
        return result

    def _import(self, tree: Node, included: Node) -> Node:
        """Resources of an included project, unless they are ours already: then ours add to theirs."""
        result = dict(_fields(tree))
        for section in SECTIONS:
            ours, theirs = result.get(section), _fields(included).get(section)
            if ours is not None and theirs is not None:
                self._warn_of_conflicts(section, ours, theirs)
                result[section] = merge(theirs, ours, (section,))
            elif theirs is not None:
                result[section] = theirs
        return Node(result, tree.position)

    def _warn_of_conflicts(self, section: str, ours: Node, theirs: Node) -> None:
        for name, node in _fields(ours).items():
            other = _fields(theirs).get(name)
            if other is not None and other.plain() != node.plain():
                self.problems.warn(
                    node.position, f"{section}.{name}: laid over what {other.position} defines by that name"
                )


def _fields(node: Node) -> dict[str, Node]:
    return node.value if isinstance(node.value, dict) else {}


class _Extender(msgspec.Struct):
    """`extends` within one file and into others.

    https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends
    """

    loader: Loader
    environment: Mapping[str, str]
    files: dict[Path, Node] = msgspec.field(default_factory=dict)
    done: dict[Origin, Node] = msgspec.field(default_factory=dict)

    def extend(self, tree: Node, path: Path) -> Node:
        services = _fields(tree).get("services")
        if services is None:
            return tree
        self.files[path] = tree
        extended: dict[str, Node] = {name: self._service((path, name), ()) for name in _fields(services)}
        self.loader.problems.check()
        section = Node(extended, services.position, services.tag)
        return Node({**_fields(tree), "services": section}, tree.position)

    def _service(self, origin: Origin, chain: tuple[Origin, ...]) -> Node:
        if origin not in self.done:
            self.done[origin] = self._extended(origin, (*chain, origin))
        return self.done[origin]

    def _extended(self, origin: Origin, chain: tuple[Origin, ...]) -> Node:
        path, name = origin
        own = Cursor(self.files[path], "", self.loader.problems).get("services").get(name)
        extends = own.get("extends")
        if not extends.exists or not isinstance(own.node.value, dict):
            return own.node
        fields = {key: node for key, node in own.node.value.items() if key != "extends"}
        node = Node(fields, own.position, own.node.tag)
        base = self._base(extends, path, chain)
        return node if base is None else merge(base, node, ("services", name))

    def _base(self, extends: Cursor, path: Path, chain: tuple[Origin, ...]) -> Node | None:
        file = Path(extends.get("file").text() or path)
        service = extends.get("service").text() or ""
        if (file, service) in chain:
            names = " → ".join(name for _, name in [*chain, (file, service)])
            extends.error(f"services extend each other in a circle: {names}")
            return None
        if len(chain) > LIMITS.depth:
            extends.error(f"more than {LIMITS.depth} services extend each other")
            return None
        if file not in self.files:
            self.files[file] = self.loader.prepare_file(file, self.environment, extends.position)
        if not Cursor(self.files[file], "", self.loader.problems).get("services").get(service).exists:
            extends.error(f"there is no service {service!r} in {self.loader.name(file)} to extend")
            return None
        base = self._service((file, service), chain)
        return strip(base)


def _stdin() -> str:
    return decode(sys.stdin.buffer.read(LIMITS.bytes + 1), "<stdin>")

"""Paths on the client's machine: made absolute from where they were written, and read with care."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from skep.compose.merge import RESET
from skep.documents import Node

LARGEST_FILE = 512 * 1024
"""Bytes of a config, a secret or an env file."""

REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/", "oci://", "docker-image://")


class UnreadableFile(ValueError):
    """The file cannot be used; the message says which and why."""


def read_file(path: Path, most: int = LARGEST_FILE) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        UnreadableFile: missing, a directory, a device, a FIFO, too large, or not ours to read.
    """
    if "\0" in str(path):
        raise UnreadableFile("cannot read a file whose name contains a NUL byte")
    try:
        # Non-blocking, or opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableFile(f"cannot read {path}: it is no regular file")
            content = _read(descriptor, most + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnreadableFile(f"cannot read {_clip(path)}: {error.strerror or error}") from error
    if len(content) > most:
        raise UnreadableFile(f"{path} is larger than {most // 1024} KiB")
    return content


def _read(descriptor: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.read(descriptor, most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _clip(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"…{text[-200:]}"


def read_text(path: Path, most: int = LARGEST_FILE) -> str:
    """As `read_file`, and decoded.

    Raises:
        UnreadableFile: also when it is not UTF-8 or holds NUL bytes.
    """
    return decode(read_file(path, most), str(path))


def decode(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(f"{name}:{line}: not UTF-8 text") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UnreadableFile(f"{name}:{line}: contains a NUL byte")
    return text


def is_file(path: Path) -> bool:
    """Whether it can be seen to be a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def absolute(text: str, base: Path, environment: Mapping[str, str]) -> Path:
    """`text` seen from `base`, with `~` for the caller's home; `..` is taken out as the shell would."""
    if text == "~" or text.startswith("~/"):
        text = environment.get("HOME", "~") + text[1:]
    return Path(os.path.normpath(base / text))


def resolve_paths(root: Node, base: Path, environment: Mapping[str, str]) -> Node:
    """The canonical tree of a file with its relative paths made absolute."""
    return _resolve(root, (), base, environment)


_PATHS = frozenset(
    {
        ("services", "*", "build", "context"),
        ("services", "*", "env_file", "*", "path"),
        ("services", "*", "label_file", "*"),
        ("services", "*", "extends", "file"),
        ("configs", "*", "file"),
        ("secrets", "*", "file"),
    }
)
_PREFIXES = frozenset(path[:length] for path in _PATHS for length in range(len(path)))
_VOLUMES = ("services", "*", "volumes")


def _resolve(node: Node, at: tuple[str, ...], base: Path, environment: Mapping[str, str]) -> Node:
    value = node.value
    if node.tag == RESET:
        return node
    if at in _PATHS and isinstance(value, str) and not value.startswith(REMOTE):
        return Node(str(absolute(value, base, environment)), node.position, node.tag)
    if at == _VOLUMES and isinstance(value, list):
        return Node([_bind(item, base, environment) for item in value], node.position, node.tag)
    if at not in _PREFIXES:
        return node
    if isinstance(value, dict):
        made = {key: _resolve(child, _step(at, key), base, environment) for key, child in value.items()}
        return Node(made, node.position, node.tag)
    if isinstance(value, list):
        items = [_resolve(child, (*at, "*"), base, environment) for child in value]
        return Node(items, node.position, node.tag)
    return node


def _step(at: tuple[str, ...], key: str) -> tuple[str, ...]:
    return (*at, "*") if len(at) == 1 else (*at, key)


def _bind(item: Node, base: Path, environment: Mapping[str, str]) -> Node:
    fields = item.value
    if not isinstance(fields, dict) or "type" not in fields or fields["type"].value != "bind":
        return item
    source = fields.get("source")
    if source is None or not isinstance(source.value, str):
        return item
    resolved = Node(str(absolute(source.value, base, environment)), source.position)
    return Node({**fields, "source": resolved}, item.position, item.tag)

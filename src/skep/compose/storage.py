"""What is mounted into a container: volumes, binds, tmpfs, configs and secrets."""

import posixpath
from collections.abc import Iterator
from typing import Literal

from skep.compose.cursor import Cursor
from skep.compose.mounts import parse_tmpfs
from skep.compose.units import parse_size
from skep.model.spec import FileMount, Mount

_MOST_ID = 2**32 - 2


def read_mounts(service: Cursor, known: frozenset[str]) -> tuple[Mount, ...]:
    """`volumes` and `tmpfs`, no two at one target; `known` are the volumes the project defines."""
    found = [*_volumes(service.get("volumes"), known), *_tmpfs(service.get("tmpfs"))]
    taken: dict[str, Cursor] = {}
    for cursor, mount in found:
        if earlier := taken.get(mount.target):
            cursor.error(f"something is mounted at {mount.target} already: {earlier.path}")
        taken[mount.target] = cursor
    return tuple(mount for _, mount in found)


def _volumes(cursor: Cursor, known: frozenset[str]) -> Iterator[tuple[Cursor, Mount]]:
    for item in cursor.items():
        mount = _volume(item)
        if mount is None:
            continue
        if mount.type == "volume" and mount.source and mount.source not in known:
            item.error(f"the volume {mount.source[:60]!r} is not defined under volumes")
        yield item, mount


def _volume(item: Cursor) -> Mount | None:
    target = _target(item.get("target") if item.has("target") else item, item.get("target").text())
    kind, source = item.get("type").text(), item.get("source").text() or ""
    read_only = item.get("read_only").boolean()
    if target is None:
        return None
    if kind == "volume":
        nocopy = item.get("volume").get("nocopy").boolean()
        return Mount(type="volume", target=target, source=source, read_only=read_only, nocopy=nocopy)
    if kind == "bind":
        return _bind(item, target, source, read_only)
    if kind == "tmpfs":
        options = item.get("tmpfs")
        mode = _mode(options.get("mode"))
        size = options.get("size").size() or None
        return Mount(type="tmpfs", target=target, read_only=read_only, size=size, mode=mode)
    item.error(f"mounts of the type {kind} are not supported: use volume, bind or tmpfs")
    return None


def _bind(item: Cursor, target: str, source: str, read_only: bool) -> Mount | None:
    if not source.startswith("/"):
        item.error("source, the path on the host, is missing")
        return None
    item.warn(f"{source[:200]} is a path of the host that runs the container; only admins may mount it")
    create = item.get("bind").get("create_host_path").boolean(default=True)
    return Mount(type="bind", target=target, source=source, read_only=read_only, create_host_path=create)


def _tmpfs(cursor: Cursor) -> Iterator[tuple[Cursor, Mount]]:
    for item in cursor.items():
        short = parse_tmpfs(item.text() or "")
        target = _target(item, short.target)
        size = item.parsed(lambda _, short=short: parse_size(short.size or "0"))  # type: ignore[misc]
        mode = item.parsed(lambda _, short=short: _octal(short.mode) if short.mode else None)  # type: ignore[misc]
        if short.others:
            item.warn(f"{', '.join(short.others)[:100]}: not acted on yet")
        if target is not None:
            read_only = short.read_only
            yield item, Mount(type="tmpfs", target=target, size=size or None, mode=mode, read_only=read_only)


def _target(cursor: Cursor, text: str | None) -> str | None:
    """An absolute path in the container, without `.` and `..`; not the root itself."""
    if not text:
        cursor.error("target, the path in the container, is missing")
        return None
    if not text.startswith("/"):
        cursor.error(f"{text[:100]!r} is no absolute path in the container")
        return None
    target = posixpath.normpath(text)
    target = "/" + target.lstrip("/")
    if target == "/":
        cursor.error("nothing can be mounted over the root of the container")
        return None
    return target


def read_files(
    service: Cursor, kind: Literal["configs", "secrets"], known: frozenset[str]
) -> tuple[FileMount, ...]:
    """`configs` or `secrets` of a service; `known` are the names the project defines."""
    folder = "/run/secrets" if kind == "secrets" else "/"
    return tuple(
        file for item in service.get(kind).items() if (file := _file(item, kind[:-1], folder, known))
    )


def _file(item: Cursor, kind: str, folder: str, known: frozenset[str]) -> FileMount | None:
    source = item.get("source").text() or ""
    if source not in known:
        item.error(f"the {kind} {source[:60]!r} is not defined under {kind}s")
        return None
    target = _target(item, posixpath.join(folder, item.get("target").text() or source))
    mode = _mode(item.get("mode"))
    uid, gid = item.get("uid").integer(0, _MOST_ID) or 0, item.get("gid").integer(0, _MOST_ID) or 0
    if target is None:
        return None
    return FileMount(source=source, target=target, uid=uid, gid=gid, mode=0o444 if mode is None else mode)


def check_targets(service: Cursor, mounts: tuple[Mount, ...], files: tuple[FileMount, ...]) -> None:
    """Record an error where a config or secret lies at a place that is taken."""
    taken = {mount.target for mount in mounts}
    for file in files:
        if file.target in taken:
            service.error(f"{file.source!r} is mounted at {file.target}, where something is mounted already")
        taken.add(file.target)


def _mode(cursor: Cursor) -> int | None:
    """Permissions: a number is what it is (YAML reads 0440 as octal), text is octal."""
    return cursor.parsed(_octal) if isinstance(cursor.node.value, str) else cursor.integer(0, 0o7777)


def _octal(text: str) -> int:
    digits = text.strip().removeprefix("0o")
    if not digits or len(digits) > 6 or set(digits) - set("01234567") or int(digits, 8) > 0o7777:
        raise ValueError(f"{text[:20]!r} is no file mode: write it in octal, like 0440")
    return int(digits, 8)

"""Every short form of Compose written out long, so that merging and reading know one form only.

Runs on one file whose shape is checked, before files are merged.  A node that is `!reset` stays as it is, and
tags stay on what they tagged.
"""

from collections.abc import Callable

from skep.compose.cursor import Cursor
from skep.compose.merge import RESET
from skep.compose.mounts import parse_mount
from skep.compose.ports import MOST_PORTS, parse_ports, parse_range
from skep.compose.problems import Problems
from skep.documents import Node, Value

Rewrite = Callable[[Cursor], Value]


def canonical(root: Node, problems: Problems) -> Node:
    """The same file in long forms; short forms that mean nothing are recorded as errors."""
    return _rewritten(Cursor(root, "", problems), _entries(_ROOT))


def _rewritten(cursor: Cursor, rewrite: Rewrite) -> Node:
    node = cursor.node
    if node.tag == RESET:
        return node
    return Node(rewrite(cursor), node.position, node.tag)


def _entries(rewrites: dict[str, Rewrite]) -> Rewrite:
    """Rewrite the named entries of a mapping; "*" names every entry."""

    def rewrite(cursor: Cursor) -> Value:
        if not isinstance(cursor.node.value, dict):
            return cursor.node.value
        result: dict[str, Node] = {}
        for key, child in cursor.entries():
            change = rewrites.get(key) or rewrites.get("*")
            result[key] = _rewritten(child, change) if change else child.node
        return result

    return rewrite


def _key_values(cursor: Cursor) -> Value:
    """`[A=1, B]` becomes `{A: 1, B: null}`."""
    if not isinstance(cursor.node.value, list):
        return cursor.node.value
    result: dict[str, Node] = {}
    for item in cursor.items():
        key, equals, value = (item.text() or "").partition("=")
        result[key.strip()] = Node(value if equals else None, item.position, item.node.tag)
    return result


def _hosts(cursor: Cursor) -> Value:
    """`[name:address, name=address]` becomes a map; a name keeps all its addresses."""
    result: dict[str, list[Node]] = {}
    if isinstance(cursor.node.value, list):
        for item in cursor.items():
            text = item.text() or ""
            separator = min((mark for mark in "=:" if mark in text), key=text.index, default="=")
            name, _, address = text.partition(separator)
            result.setdefault(name.strip(), []).append(Node(address.strip(), item.position))
    else:
        for name, child in cursor.entries():
            many = child.node.value if isinstance(child.node.value, list) else [child.node]
            result.setdefault(name, []).extend(many)
    return {name: Node([*nodes], nodes[0].position) for name, nodes in result.items() if nodes}


def _list(cursor: Cursor) -> Value:
    value = cursor.node.value
    return value if isinstance(value, list) or value is None else [Node(value, cursor.position)]


def _keys(default: dict[str, Value] | None = None) -> Rewrite:
    """`[a, b]` becomes `{a: default, b: default}`."""

    def rewrite(cursor: Cursor) -> Value:
        if not isinstance(cursor.node.value, list):
            return cursor.node.value
        return {item.text() or "": _mapping(item, default) for item in cursor.items()}

    return rewrite


def _mapping(item: Cursor, fields: dict[str, Value] | None) -> Node:
    if fields is None:
        return Node(None, item.position)
    made: dict[str, Node] = {key: Node(value, item.position) for key, value in fields.items()}
    return Node(made, item.position)


def _field(name: str) -> Rewrite:
    """`text` becomes `{name: text}`."""

    def rewrite(cursor: Cursor) -> Value:
        value = cursor.node.value
        return {name: Node(value, cursor.position)} if isinstance(value, str) else value

    return rewrite


def _each(rewrite: Rewrite) -> Rewrite:
    def rewrite_items(cursor: Cursor) -> Value:
        if not isinstance(cursor.node.value, list):
            return cursor.node.value
        return [_rewritten(item, rewrite) for item in cursor.items()]

    return rewrite_items


def _then(*rewrites: Rewrite) -> Rewrite:
    def rewrite(cursor: Cursor) -> Value:
        for step in rewrites:
            cursor = Cursor(Node(step(cursor), cursor.position), cursor.path, cursor.problems)
        return cursor.node.value

    return rewrite


def _ports(cursor: Cursor) -> Value:
    result: list[Node] = []
    for item in cursor.items():
        if isinstance(item.node.value, dict) or item.node.tag == RESET:
            result.append(item.node)
            continue
        ports = item.parsed(parse_ports) or []
        if len(result) + len(ports) > MOST_PORTS:
            item.error(f"a service may publish {MOST_PORTS} ports")
            break
        for port in ports:
            fields: dict[str, Value] = {
                key: value for key, value in port._asdict().items() if value is not None
            }
            result.append(_mapping(item, fields))
    return result


def _expose(cursor: Cursor) -> Value:
    """Single ports as text: `8000-8001/udp` becomes `8000/udp`, `8001/udp`."""
    result: list[Node] = []
    for item in cursor.items():
        text = item.text() or ""
        ports, _, protocol = text.partition("/")
        if protocol not in ("", "tcp", "udp", "sctp"):
            item.error(f"unknown protocol {protocol[:20]!r}")
        if len(result) > MOST_PORTS:
            item.error(f"a service may expose {MOST_PORTS} ports")
            break
        numbers = item.parsed(lambda _, ports=ports, text=text: parse_range(ports, text)) or []  # type: ignore[misc]
        suffix = f"/{protocol}" if protocol else ""
        result.extend(Node(f"{number}{suffix}", item.position) for number in numbers)
    return result


def _volume(cursor: Cursor) -> Value:
    if isinstance(cursor.node.value, dict):
        return cursor.node.value
    mount = cursor.parsed(parse_mount)
    if mount is None:
        return {"type": Node("volume", cursor.position)}
    fields: dict[str, Value] = {"type": "bind" if mount.bind else "volume", "target": mount.target}
    if mount.source:
        fields["source"] = mount.source
    if mount.read_only:
        fields["read_only"] = True
    if mount.nocopy and not mount.bind:
        fields["volume"] = {"nocopy": Node(True, cursor.position)}
    if mount.bind:
        fields["bind"] = {"create_host_path": Node(True, cursor.position)}
    if mount.others:
        cursor.warn(f"{', '.join(mount.others)}: not acted on")
    return _mapping(cursor, fields).value


def _ulimit(cursor: Cursor) -> Value:
    value = cursor.node.value
    if isinstance(value, dict):
        return value
    return {"soft": Node(value, cursor.position), "hard": Node(value, cursor.position)}


def _empty(cursor: Cursor) -> Value:
    return {} if cursor.node.value is None else cursor.node.value


def _external(cursor: Cursor) -> Value:
    """The old `external: {name: x}` becomes `external: true` and `name: x`."""
    value = cursor.node.value
    if not isinstance(value, dict):
        return value
    external = value.get("external")
    if external is None or not isinstance(external.value, dict):
        return value
    name = {"name": named} if (named := external.value.get("name")) else {}
    return {**value, **name, "external": Node(True, external.position)}


_RESOURCE = _then(_empty, _external, _entries({"labels": _key_values}))

_BUILD = _then(
    _field("context"),
    _entries({"args": _key_values, "labels": _key_values, "additional_contexts": _key_values}),
)

_SERVICE = _entries(
    {
        "annotations": _key_values,
        "build": _BUILD,
        "configs": _each(_field("source")),
        "depends_on": _keys({"condition": "service_started"}),
        "deploy": _then(_empty, _entries({"labels": _key_values})),
        "dns": _list,
        "dns_search": _list,
        "env_file": _then(_list, _each(_field("path"))),
        "environment": _key_values,
        "expose": _expose,
        "extends": _field("service"),
        "extra_hosts": _hosts,
        "label_file": _list,
        "labels": _key_values,
        "networks": _keys(),
        "ports": _ports,
        "secrets": _each(_field("source")),
        "sysctls": _key_values,
        "tmpfs": _list,
        "ulimits": _entries({"*": _ulimit}),
        "volumes": _each(_volume),
    }
)

_ROOT: dict[str, Rewrite] = {
    "include": _each(_then(_field("path"), _entries({"path": _list, "env_file": _list}))),
    "services": _entries({"*": _SERVICE}),
    "networks": _entries({"*": _RESOURCE}),
    "volumes": _entries({"*": _RESOURCE}),
    "configs": _entries({"*": _RESOURCE}),
    "secrets": _entries({"*": _RESOURCE}),
}

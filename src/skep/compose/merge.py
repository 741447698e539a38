"""How a later Compose file changes an earlier one, and a service the one it extends.

Rules: https://github.com/compose-spec/compose-spec/blob/main/13-merge.md.  Both trees are canonical
(`skep.compose.canonical`), so maps meet maps and lists meet lists.
"""

from collections.abc import Callable

from skep.documents import Node

RESET = "!reset"
OVERRIDE = "!override"
TAGS = frozenset({RESET, OVERRIDE})

Pattern = tuple[str, ...]
"""Keys from the root; "*" stands for any one of them."""


def strip(node: Node) -> Node | None:
    """The tree without what is `!reset`, and without tags; None where the whole node is."""
    if node.tag == RESET:
        return None
    value = node.value
    if isinstance(value, dict):
        kept = {key: child for key, old in value.items() if (child := strip(old))}
        return Node(kept, node.position)
    if isinstance(value, list):
        return Node([child for old in value if (child := strip(old))], node.position)
    return Node(value, node.position)


def merge(earlier: Node, later: Node, at: Pattern = ()) -> Node:
    """The later tree over the earlier one; `at` is where both stand in a whole file."""
    if later.tag or matches(at, _REPLACED):
        return later
    left, right = earlier.value, later.value
    if right is None and not matches(at, _NULL_COUNTS):
        return earlier
    if isinstance(left, dict) and isinstance(right, dict):
        if matches(at, _DRIVEN) and _other_driver(earlier, later):
            return later
        return Node(_mappings(left, right, at), later.position)
    if isinstance(left, list) and isinstance(right, list):
        return Node(_sequences(left, right, at), later.position)
    return later


def _mappings(left: dict[str, Node], right: dict[str, Node], at: Pattern) -> dict[str, Node]:
    result = dict(left)
    for key, node in right.items():
        result[key] = merge(result[key], node, (*at, key)) if key in result else node
    return {key: node for key, node in result.items() if node.tag != RESET}


def _sequences(left: list[Node], right: list[Node], at: Pattern) -> list[Node]:
    identity = next((key for pattern, key in _IDENTITIES.items() if matches(at, {pattern})), None)
    if identity is None:
        return [*left, *right]
    result: dict[object, Node] = {}
    for node in [*left, *right]:
        key = identity(node)
        known = key in result and matches(at, _MERGED_ITEMS)
        result[key] = merge(result[key], node, (*at, "*")) if known else node
    return list(result.values())


def matches(at: Pattern, patterns: "set[Pattern] | frozenset[Pattern]") -> bool:
    return any(
        len(pattern) == len(at) and all(want in ("*", key) for want, key in zip(pattern, at, strict=True))
        for pattern in patterns
    )


def _other_driver(earlier: Node, later: Node) -> bool:
    old, new = _field(earlier, "driver"), _field(later, "driver")
    return old is not None and new is not None and old != new


def _service(*path: str) -> Pattern:
    return ("services", "*", *path)


_REPLACED = frozenset(
    {
        _service("command"),
        _service("entrypoint"),
        _service("healthcheck", "test"),
        _service("ulimits", "*"),
    }
)
_DRIVEN = frozenset({_service("logging")})
_MERGED_ITEMS = frozenset({("networks", "*", "ipam", "config")})
_NULL_COUNTS = frozenset(
    {
        _service("environment", "*"),  # `- NAME` asks for the caller's value again
        _service("build", "args", "*"),
    }
)


def _field(node: Node, name: str, default: object = None) -> object:
    field = node.value.get(name) if isinstance(node.value, dict) else None
    return default if field is None or field.value is None else field.value


def _itself(node: Node) -> object:
    return str(node.plain())


def _port(node: Node) -> object:
    published = _field(node, "published")
    protocol = _field(node, "protocol", "tcp")
    return _field(node, "host_ip", "0.0.0.0"), str(published), str(_field(node, "target")), protocol  # noqa: S104


def _file_target(folder: str) -> Callable[[Node], object]:
    def target(node: Node) -> object:
        name = str(_field(node, "target") or _field(node, "source"))
        return name if name.startswith("/") else f"{folder}/{name}"

    return target


def _named(name: str) -> Callable[[Node], object]:
    return lambda node: str(_field(node, name))


_IDENTITIES: dict[Pattern, Callable[[Node], object]] = {
    _service("ports"): _port,
    _service("volumes"): _named("target"),
    _service("secrets"): _file_target("/run/secrets"),
    _service("configs"): _file_target(""),
    _service("env_file"): _named("path"),
    ("networks", "*", "ipam", "config"): _named("subnet"),
    **{
        _service(*path): _itself
        for path in (
            ("build", "tags"),
            ("cap_add",),
            ("cap_drop",),
            ("devices",),
            ("dns",),
            ("dns_opt",),
            ("dns_search",),
            ("expose",),
            ("external_links",),
            ("group_add",),
            ("label_file",),
            ("links",),
            ("networks", "*", "aliases"),
            ("profiles",),
            ("security_opt",),
            ("tmpfs",),
            ("volumes_from",),
        )
    },
}

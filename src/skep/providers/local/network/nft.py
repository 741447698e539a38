"""nftables: a table as data, the difference to what the kernel holds, and one transaction that closes it.

Spoken through libnftables in this process: 0.1 ms a transaction where starting `nft` costs 3 ms.  Functions
here act on the namespace of the calling thread.

Every rule carries a hash of its own text as comment, so that what the kernel lists can be compared with what
is wanted without parsing rules: a table that was damaged by hand, or made by another version, is noticed.
"""

import ctypes
import functools
import hashlib
import threading
from typing import Any, Literal

import msgspec

from skep.model.errors import HostFailure

_JSON, _STATELESS = 1 << 4, 1 << 2  # nftables/libnftables.h: NFT_CTX_OUTPUT_*
_one_at_a_time = threading.Lock()

Elements = dict[str, str]
"""Of a set: keys with "".  Of a map: keys with values.  Fields are joined by " . ", names unquoted."""


class Set(msgspec.Struct, frozen=True):
    """A set or map; `elements` None: packets fill it."""

    name: str
    kind: Literal["set", "map"]
    definition: str
    elements: Elements | None = msgspec.field(default_factory=dict)


class Chain(msgspec.Struct, frozen=True):
    """`hook` is empty, or `type … hook … priority …; policy …;`."""

    name: str
    rules: tuple[str, ...]
    hook: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(_tag(self.hook, rule) for rule in self.rules)


class Table(msgspec.Struct, frozen=True):
    family: Literal["inet", "bridge", "arp"]
    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]


class Found(msgspec.Struct, frozen=True):
    """What the kernel holds of a table: elements by set, tags of the rules by chain."""

    sets: dict[str, Elements]
    chains: dict[str, tuple[str, ...]]


def reconcile(tables: tuple[Table, ...]) -> None:
    """Make the tables so, in one transaction that touches only what differs."""
    text = "".join(plan(table, read(table)) for table in tables)
    if text:
        commit(text)


def whole(tables: tuple[Table, ...]) -> bool:
    """Whether nothing differs but what is left of interfaces that are gone, which is no harm."""
    return not any(plan(table, _of_living(table, read(table))) for table in tables)


def _of_living(table: Table, found: Found | None) -> Found | None:
    """Elements that begin with an interface are listed by its name, or its number when it is gone."""
    if found is None:
        return None
    by_interface = {one.name for one in table.sets if "iface_index" in one.definition}
    living = {
        name: {key: value for key, value in elements.items() if not key.split(" . ")[0].isdigit()}
        for name, elements in found.sets.items()
        if name in by_interface
    }
    return Found(found.sets | living, found.chains)


def plan(table: Table, found: Found | None) -> str:
    """The nft commands that turn what was found into what is wanted; "" when nothing differs."""
    have = found or Found({}, {})
    wanted = {chain.name for chain in table.chains}
    changed = [chain for chain in table.chains if have.chains.get(chain.name) != chain.tags]
    stale = [name for name in have.chains if name not in wanted]
    where = f"{table.family} {table.name}"
    lines = [] if found else [f"add table {where}"]
    lines += [
        f"add {s.kind} {where} {s.name} {{ {s.definition} }}" for s in table.sets if s.name not in have.sets
    ]
    lines += [line for chain in changed for line in _empty(where, chain, chain.name in have.chains)]
    lines += [line for s in table.sets for line in _outdated(where, s, have)]
    lines += [
        f'add rule {where} {chain.name} {rule} comment "{tag}"'
        for chain in changed
        for rule, tag in zip(chain.rules, chain.tags, strict=True)
    ]
    lines += [f"flush chain {where} {name}\ndelete chain {where} {name}" for name in stale]
    lines += [f"delete set {where} {name}" for name in have.sets if name not in {s.name for s in table.sets}]
    lines += [line for s in table.sets for line in _missing(where, s, have)]
    return "".join(f"{line}\n" for line in lines)


def _empty(where: str, chain: Chain, there: bool) -> list[str]:
    if not chain.hook:
        return [f"add chain {where} {chain.name}", f"flush chain {where} {chain.name}"]
    drop = [f"flush chain {where} {chain.name}", f"delete chain {where} {chain.name}"] if there else []
    return [*drop, f"add chain {where} {chain.name} {{ {chain.hook} }}"]


def _outdated(where: str, wanted: Set, have: Found) -> list[str]:
    there, then = have.sets.get(wanted.name, {}), wanted.elements
    if then is None:
        return []
    gone = [key for key, value in there.items() if then.get(key) != value]
    return [delete_element(where, wanted.name, *gone)] if gone else []


def _missing(where: str, wanted: Set, have: Found) -> list[str]:
    there, then = have.sets.get(wanted.name, {}), wanted.elements or {}
    new = {key: value for key, value in then.items() if there.get(key) != value}
    return [add_element(where, wanted.name, new)] if new else []


def add_element(where: str, name: str, elements: Elements) -> str:
    """One command for all: ten thousand lines take libnftables five times as long."""
    listed = ", ".join(
        f"{_quoted(key)} : {value}" if value else _quoted(key) for key, value in elements.items()
    )
    return f"add element {where} {name} {{ {listed} }}"


def delete_element(where: str, name: str, *keys: str) -> str:
    return f"delete element {where} {name} {{ {', '.join(map(_quoted, keys))} }}"


def change_elements(table: Table, have: Table) -> str:
    """The commands that turn the elements of one table into those of another with the same sets."""
    where = f"{table.family} {table.name}"
    there = Found({s.name: s.elements or {} for s in have.sets}, {})
    lines = [line for s in table.sets for line in (*_outdated(where, s, there), *_missing(where, s, there))]
    return "".join(f"{line}\n" for line in lines)


def _quoted(key: str) -> str:
    """Interface names need quotes: they may begin with a digit or be a keyword.  Addresses bear them not."""
    first, *rest = key.split(" . ")
    return " . ".join([f'"{first}"' if len(rest) == 2 and ":" in rest[0] else first, *rest])


def _tag(hook: str, rule: str) -> str:
    return hashlib.sha256(f"{hook}\0{rule}".encode()).hexdigest()[:16]


def commit(commands: str) -> None:
    """Carry out the commands, all or none.  Raises HostFailure."""
    code, _, error = _run(commands, 0)
    if code:
        raise HostFailure(f"nftables refused: {error.strip()}")


def tables() -> list[tuple[str, str]]:
    """Family and name of every table in this namespace."""
    code, output, error = _run("list tables", _JSON)
    if code:
        raise HostFailure(f"nftables does not answer: {error.strip()}")
    listed = msgspec.json.decode(output)["nftables"]
    return [(item["table"]["family"], item["table"]["name"]) for item in listed if "table" in item]


def read(table: Table) -> Found | None:
    """What the kernel holds of the table; None: nothing."""
    code, output, error = _run(f"list table {table.family} {table.name}", _JSON | _STATELESS)
    if not code:
        return _found(msgspec.json.decode(output)["nftables"])
    if "No such file or directory" in error:
        return None
    raise HostFailure(f"nftables does not answer: {error.strip()}")


def _found(items: list[dict[str, Any]]) -> Found:
    sets: dict[str, Elements] = {}
    chains: dict[str, tuple[str, ...]] = {}
    for item in items:
        if held := item.get("set") or item.get("map"):
            sets[held["name"]] = dict(_element(element) for element in held.get("elem", []))
        elif "chain" in item:
            chains.setdefault(item["chain"]["name"], ())
        elif "rule" in item:
            rule = item["rule"]
            chains[rule["chain"]] = (*chains.get(rule["chain"], ()), rule.get("comment", ""))
    return Found(sets, chains)


def _element(element: Any) -> tuple[str, str]:
    key, value = element if isinstance(element, list) else (element, "")
    return _text(key), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dict) and "concat" in value:
        return " . ".join(_text(part) for part in value["concat"])
    if isinstance(value, dict) and (verdict := next(iter(value.keys() & {"goto", "jump"}), "")):
        return f"{verdict} {value[verdict]['target']}"
    if isinstance(value, dict) and "prefix" in value and isinstance(value["prefix"]["addr"], int):
        first, length = value["prefix"]["addr"], value["prefix"]["len"]
        return f"{first}-{first + 2 ** (32 - length) - 1}"
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if isinstance(value, dict) and "range" in value:
        return "-".join(_text(end) for end in value["range"])
    if isinstance(value, dict) and "elem" in value:
        return _text(value["elem"]["val"])
    return str(value)


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise HostFailure("libnftables.so.1 is missing: install the package nftables.") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def _run(commands: str, flags: int) -> tuple[int, bytes, str]:
    """A context holds a netlink socket of the namespace it was made in, so each run has its own."""
    library = _library()
    with _one_at_a_time:
        context = library.nft_ctx_new(0)
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_output_set_flags(context, flags)
            code = int(library.nft_run_cmd_from_buffer(context, commands.encode()))
            output = bytes(library.nft_ctx_get_output_buffer(context) or b"")
            error = bytes(library.nft_ctx_get_error_buffer(context) or b"")
            return code, output, error.decode(errors="replace")
        finally:
            library.nft_ctx_free(context)

"""`bundle.yaml`: what a bundle is called, what it brings, and the rights that it asks for."""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from skep.documents import Document, DocumentError, Path, load
from skep.flow.bundles.refusals import BundleRefused

MANIFEST = "bundle.yaml"
MEBIBYTE = 1024 * 1024
LEAST_MEMORY = 16 * MEBIBYTE

Process = Literal["own", "worker"]


class Rights(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the code of a bundle may do.

    `routes`: patterns (`agent.*`) of the `on:` that its steps may be sent to.  `overrides`: flows of the
    program that it may replace.  `memory`: bytes, beyond what an empty process takes.
    """

    network: bool = False
    database: bool = False
    routes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    memory: int = 512 * MEBIBYTE


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`steps` are modules, `types` are `module:Name`; `prefix`: of steps' names, else each module's last."""

    bundle: str
    version: str
    description: str = ""
    steps: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    prefix: str | None = None
    requirements: tuple[str, ...] = ()
    process: Process = "own"
    rights: Rights = Rights()


def read_manifest(text: str, file: str = MANIFEST) -> Manifest:
    """Raises BundleRefused with every fault and its line."""
    try:
        document = load(text, file)
    except DocumentError as error:
        raise BundleRefused([str(error)]) from error
    reader = _Reader(document)
    manifest = reader.manifest()
    if reader.problems:
        raise BundleRefused(reader.problems)
    return manifest


_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_TYPE = re.compile(rf"{_MODULE.pattern}:[A-Za-z_]\w*")
_ANYTHING = re.compile(r"[^\x00-\x1f]{1,200}")
_SIZE = re.compile(r"(\d+)\s*(KiB|MiB|GiB)?")
_UNITS = {None: 1, "KiB": 1024, "MiB": MEBIBYTE, "GiB": 1024 * MEBIBYTE}
_KEYS = frozenset(Manifest.__struct_fields__)
_RIGHTS = frozenset(Rights.__struct_fields__)


class _Reader:
    """Takes the document apart and collects what is wrong with it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[str] = []

    def wrong(self, path: Path, reason: str) -> None:
        self.problems.append(f"{self.document.where(path)}: {reason}")

    def manifest(self) -> Manifest:
        root = self.mapping(self.document.data, (), _KEYS)
        process = root.get("process", "own")
        if process not in ("own", "worker"):
            self.wrong(("process",), f"'process' is own or worker, not {process!r}")
        manifest = Manifest(
            bundle=self.text(root, "bundle", _NAME, "a name of small letters, digits, '.', '_' and '-'"),
            version=self.text(root, "version", _ANYTHING, 'a version in quotes, such as "1.4.0"'),
            description=str(root.get("description") or ""),
            steps=self.texts(root, (), "steps", _MODULE, "the name of a module"),
            types=self.texts(root, (), "types", _TYPE, "module:Name"),
            prefix=self.prefix(root),
            requirements=self.texts(root, (), "requirements", _ANYTHING, 'such as "httpx>=0.27"'),
            process="worker" if process == "worker" else "own",
            rights=self.rights(root.get("rights")),
        )
        self.consistent(manifest)
        return manifest

    def consistent(self, manifest: Manifest) -> None:
        if manifest.process == "worker" and manifest.requirements:
            self.wrong(
                ("requirements",), "a bundle with requirements needs a process of its own: 'process: own'"
            )
        if manifest.process == "own" and manifest.rights.database:
            self.wrong(
                ("rights", "database"), "only a bundle inside the worker has the database: 'process: worker'"
            )

    def rights(self, value: object) -> Rights:
        body = self.mapping(value, ("rights",), _RIGHTS)
        return Rights(
            network=self.flag(body, "network"),
            database=self.flag(body, "database"),
            routes=self.texts(body, ("rights",), "routes", _ANYTHING, "such as agent.*"),
            overrides=self.texts(body, ("rights",), "overrides", _ANYTHING, "the name of a flow"),
            memory=self.memory(body.get("memory", Rights().memory)),
        )

    def mapping(self, value: object, path: Path, known: frozenset[str]) -> dict[str, object]:
        if value is not None and not isinstance(value, dict):
            self.wrong(path, "must be a mapping")
        body = value if isinstance(value, dict) else {}
        for key in body.keys() - known:
            self.wrong((*path, key), f"{key!r} is not known here; known are {', '.join(sorted(known))}")
        return body

    def prefix(self, root: Mapping[str, object]) -> str | None:
        return None if root.get("prefix") is None else self.text(root, "prefix", _MODULE, "a name")

    def text(self, body: Mapping[str, object], key: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = body.get(key)
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        self.wrong((key,), f"{key!r} must be {wanted}" + ("" if value is None else f", not {value!r}"))
        return ""

    def texts(
        self, body: Mapping[str, object], path: Path, key: str, pattern: re.Pattern[str], wanted: str
    ) -> tuple[str, ...]:
        value = body.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong((*path, key), f"{key!r} must be a list")
            return ()
        for index, item in enumerate(value):
            if not isinstance(item, str) or not pattern.fullmatch(item):
                self.wrong((*path, key, index), f"an item of {key!r} must be {wanted}, not {item!r}")
        return tuple(item for item in value if isinstance(item, str))

    def flag(self, body: Mapping[str, object], key: str) -> bool:
        value = body.get(key, False)
        if not isinstance(value, bool):
            self.wrong(("rights", key), f"{key!r} is true or false, not {value!r}")
        return value is True

    def memory(self, value: object) -> int:
        match = _SIZE.fullmatch(str(value))
        size = int(match[1]) * _UNITS[match[2]] if match else 0
        if size < LEAST_MEMORY:
            self.wrong(
                ("rights", "memory"), f"'memory' is a size of at least 16MiB, such as 512MiB, not {value!r}"
            )
        return size

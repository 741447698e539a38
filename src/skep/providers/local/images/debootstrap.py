"""A Debian base image from Debian's own packages, for hosts that reach no registry.

debootstrap runs the packages' scripts as root; they are trusted as far as the host's own packages are, and
come from the same mirror with the same keys.
"""

import asyncio
import os
import re
from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput, Unavailable
from skep.providers.local.commands import LineSink, follow, run
from skep.providers.local.images.layers import remove_tree

_SUITE = re.compile(r"[a-z][a-z0-9-]{1,30}")
_LISTS = Path("/etc/apt")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT = 900.0
_INSTALL = r"""
set -eu
debootstrap --variant=minbase --merged-usr --cache-dir="$4" ${5:+--keyring="$5"} "$1" "$2" ${3:+"$3"}
"""
_TIDY = (
    "var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "var/log/*",
    "tmp/*", "dev/*", "var/cache/ldconfig/*", "debootstrap",
)  # fmt: skip

# As in the official images: a layer is durable as a whole or not at all, and downloads are not kept.
_SETTINGS = {
    "etc/dpkg/dpkg.cfg.d/image": "force-unsafe-io\n",
    "etc/apt/apt.conf.d/image": (
        'Acquire::Languages "none";\n'
        'Dir::Cache::pkgcache "";\n'
        'Dir::Cache::srcpkgcache "";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
    ),
}


class AptSource(msgspec.Struct, frozen=True, kw_only=True):
    """One line of apt's sources: where a suite comes from."""

    uri: str
    suite: str
    components: tuple[str, ...]


def read_sources(text: str) -> list[AptSource]:
    """The `deb` sources of a file in one-line or deb822 format (sources.list(5))."""
    if re.search(r"^URIs:", text, re.MULTILINE | re.IGNORECASE):
        return [source for block in re.split(r"\n\s*\n", text) for source in _from_block(block)]
    return [source for line in text.splitlines() for source in _from_line(line)]


def sources_for(suite: str, sources: list[AptSource]) -> list[AptSource]:
    """Those that have the suite, its updates or its security fixes; without one Debian's own mirror."""
    related = {suite, f"{suite}-updates", f"{suite}-security"}
    found = [source for source in sources if source.suite in related and "main" in source.components]
    return found if any(source.suite == suite for source in found) else []


async def bootstrap_tar(suite: str, scratch: Path, cache: Path, place: Path, progress: LineSink) -> Path:
    """Make the root file system of a suite as a tar in `place`.  Downloads are kept in `cache`.

    Raises:
        InvalidInput: there is no such suite.  Unavailable: the mirror does not answer.
    """
    if not _SUITE.fullmatch(suite):
        raise InvalidInput(f"{suite!r} is not the name of a Debian suite.")
    sources = sources_for(suite, await asyncio.to_thread(_host_sources))
    target = scratch / f"bootstrap-{suite}-{os.getpid()}"
    remove_tree(target)
    target.mkdir(parents=True, mode=0o755)
    try:
        await _install(suite, target, cache, sources, progress)
        await asyncio.to_thread(_tidy, target, suite, sources)
        tar = place / "root.tar"
        await run("tar", "--numeric-owner", "--xattrs", "--sort=name", "-C", target, "-cf", tar, ".")
        return tar
    finally:
        await asyncio.to_thread(remove_tree, target)


async def _install(
    suite: str, target: Path, cache: Path, sources: list[AptSource], progress: LineSink
) -> None:
    """In namespaces of its own, so that its mounts and daemons end with it."""
    cache.mkdir(parents=True, exist_ok=True)
    mirror = next((source.uri for source in sources if source.suite == suite), "")
    keyring = str(_KEYRING) if _KEYRING.exists() else ""
    room = (
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
        "--mount-proc",
    )
    command = (*room, "sh", "-c", _INSTALL, "bootstrap", suite, target, mirror, cache.resolve(), keyring)
    try:
        outcome = await follow(command, progress, timeout=_TIMEOUT)
    except TimeoutError as error:
        raise Unavailable(f"debootstrap of {suite} took longer than {_TIMEOUT:.0f} s.") from error
    if outcome.code and "No such script" in outcome.text:
        raise InvalidInput(f"debootstrap does not know the suite {suite!r}.")
    if outcome.code:
        raise Unavailable(f"debootstrap of {suite} failed:\n" + "\n".join(outcome.lines[-10:]))


def _tidy(target: Path, suite: str, sources: list[AptSource]) -> None:
    """Leave what an image should have: no caches, no identity; apt knows its sources, and keeps nothing."""
    for pattern in _TIDY:
        for path in target.glob(pattern):
            remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (target / "etc/machine-id").write_text("")
    for name in ("etc/hostname", "etc/resolv.conf"):
        (target / name).unlink(missing_ok=True)
    for name, text in _SETTINGS.items():
        (target / name).write_text(text)
    if sources:
        lines = (f"deb {source.uri} {source.suite} {' '.join(source.components)}\n" for source in sources)
        (target / "etc/apt/sources.list").write_text("".join(lines))


def _host_sources() -> list[AptSource]:
    files = [_LISTS / "sources.list", *sorted((_LISTS / "sources.list.d").glob("*"))]
    readable = [file for file in files if file.suffix in (".list", ".sources") and file.is_file()]
    return [source for file in readable for source in read_sources(file.read_text(errors="replace"))]


def _from_line(line: str) -> list[AptSource]:
    words = re.sub(r"\[[^\]]*\]", "", line.partition("#")[0]).split()
    if len(words) < 4 or words[0] != "deb":
        return []
    return [AptSource(uri=words[1], suite=words[2], components=tuple(words[3:]))]


def _from_block(block: str) -> list[AptSource]:
    lines = (line.partition(":") for line in block.splitlines() if not line.startswith("#"))
    fields = {key.strip().lower(): value.split() for key, _, value in lines}
    if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
        return []
    components = tuple(fields.get("components", ()))
    return [
        AptSource(uri=uri, suite=suite, components=components)
        for uri in fields.get("uris", ())
        for suite in fields.get("suites", ())
    ]

"""Maps of names to text: environment, labels, sysctls, extra hosts."""

from collections import ChainMap
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from skep.compose.cursor import Cursor
from skep.compose.dotenv import EnvFileError, parse_env, parse_raw_env
from skep.compose.paths import UnreadableFile, is_file, read_text
from skep.compose.surroundings import Surroundings


def read_environment(service: Cursor, around: Surroundings) -> dict[str, str]:
    """`env_file` in order, then `environment` over it.

    A name without a value takes the caller's; where the caller has none, the variable is not set at all,
    not even by an env file.
    """
    own = dict(_given(service.get("environment"), around.environment))
    result: dict[str, str] = {}
    for entry in service.get("env_file").items():
        known = {key: value for key, value in own.items() if value is not None}
        result |= _env_file(entry, ChainMap(dict(around.environment), known, result), around)
    result |= {key: value for key, value in own.items() if value is not None}
    return {key: value for key, value in result.items() if own.get(key, "") is not None}


def _given(cursor: Cursor, environment: Mapping[str, str]) -> dict[str, str | None]:
    result: dict[str, str | None] = {}
    for key, value in cursor.entries():
        if not key or "=" in key:
            value.error(f"{key[:40]!r} is no name of a variable")
        result[key] = value.text() if value.exists else environment.get(key)
    return result


def _env_file(entry: Cursor, known: Mapping[str, str], around: Surroundings) -> dict[str, str]:
    path = Path(entry.get("path").text() or "")
    raw = entry.get("format")
    if raw.exists and raw.text() != "raw":
        raw.error("must be raw, or left out")
    if not entry.get("required").boolean(default=True) and not is_file(path):
        return {}
    try:
        text = read_text(path)
        return parse_raw_env(text) if raw.exists else parse_env(text, known)
    except EnvFileError as error:
        around.problems.error(around.file_position(path, error.line), str(error))
    except UnreadableFile as error:
        entry.error(str(error))
    return {}


def read_args(cursor: Cursor, environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments; a name without a value takes the caller's, or is left out."""
    return {key: value for key, value in _given(cursor, environment).items() if value is not None}


def read_labels(service: Cursor, around: Surroundings) -> dict[str, str]:
    """`label_file` in order, then `labels` over it."""
    result: dict[str, str] = {}
    for entry in service.get("label_file").items():
        path = Path(entry.text() or "")
        try:
            result |= parse_env(read_text(path), around.environment)
        except EnvFileError as error:
            around.problems.error(around.file_position(path, error.line), str(error))
        except UnreadableFile as error:
            entry.error(str(error))
    return result | read_map(service.get("labels"))


def read_map(cursor: Cursor) -> dict[str, str]:
    """Names to text; a name without a value has the empty text."""
    return {key: value.text() or "" for key, value in cursor.entries()}


_SYSCTLS = ("net.", "kernel.msg", "kernel.shm", "kernel.sem", "fs.mqueue.")


def read_sysctls(cursor: Cursor) -> dict[str, str]:
    """Kernel settings that belong to a container's own namespaces; others are errors."""
    for key, value in cursor.entries():
        if not key.startswith(_SYSCTLS):
            value.error(
                "only net.*, kernel.msg*, kernel.shm*, kernel.sem and fs.mqueue.* are a container's own"
            )
    return read_map(cursor)


def read_hosts(cursor: Cursor) -> dict[str, str]:
    """Additional names for addresses: one address for each name."""
    result: dict[str, str] = {}
    for name, addresses in cursor.entries():
        texts = list(dict.fromkeys(addresses.texts()))
        if texts == ["host-gateway"]:
            addresses.warn("not acted on: containers have no name for the host they run on")
        elif len(texts) != 1:
            addresses.error("a name can have one address only")
        elif not _is_address(texts[0].strip("[]")):
            addresses.error(f"{texts[0][:60]!r} is no IP address")
        else:
            result[name] = texts[0].strip("[]")
    return result


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

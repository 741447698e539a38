"""Which files make up a project, in which directory, under which name and with which variables.

https://docs.docker.com/compose/how-tos/environment-variables/envvars/ lists the COMPOSE_… variables.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from skep.compose.loading import STDIN
from skep.compose.paths import is_file

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = tuple(name.replace(".y", ".override.y") for name in NAMES)
LONGEST_NAME = 63


def find_files(start: Path) -> list[Path]:
    """The Compose file of this directory or of the nearest parent that has one, and its override."""
    for directory in (start, *start.parents):
        found = [directory / name for name in NAMES if is_file(directory / name)]
        if found:
            overrides = [directory / name for name in OVERRIDES if is_file(directory / name)]
            return found[:1] + overrides[:1]
    return []


def named_files(variables: Mapping[str, str], start: Path) -> list[Path]:
    """The files of COMPOSE_FILE, separated as COMPOSE_PATH_SEPARATOR says."""
    separator = variables.get("COMPOSE_PATH_SEPARATOR") or ":"
    return [_seen_from(start, name) for name in variables.get("COMPOSE_FILE", "").split(separator) if name]


def default_env_files(variables: Mapping[str, str], directory: Path) -> list[Path]:
    """COMPOSE_ENV_FILES, or `.env` of the project directory if it is there and not disabled."""
    if names := variables.get("COMPOSE_ENV_FILES"):
        return [_seen_from(directory, name) for name in names.split(",") if name]
    if variables.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true"):
        return []
    return [directory / ".env"] if is_file(directory / ".env") else []


def active_profiles(variables: Mapping[str, str], chosen: Sequence[str]) -> frozenset[str]:
    """The profiles asked for, or those of COMPOSE_PROFILES."""
    return frozenset(chosen or filter(None, variables.get("COMPOSE_PROFILES", "").split(",")))


def normalised_name(text: str) -> str:
    """A project name from that of a directory: Compose's rule, and no `-` or `_` at the end either."""
    return re.sub("[^a-z0-9_-]", "", text.lower()).strip("_-")[:LONGEST_NAME].strip("_-")


def _seen_from(directory: Path, name: str) -> Path:
    return STDIN if name == "-" else directory / name

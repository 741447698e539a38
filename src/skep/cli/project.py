"""The Compose project that a command line means."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from skep.cli.failures import Exit, Failure
from skep.cli.output import complain, warn

if TYPE_CHECKING:
    from skep.compose import Project


@Parameter(name="*")
@dataclass(frozen=True)
class ProjectOptions:
    """Which Compose files, under which name."""

    file: Annotated[tuple[Path, ...], Parameter(name=["--file", "-f"])] = ()
    """Compose file; may be given several times, later ones override. `-` is stdin."""
    project_name: Annotated[str | None, Parameter(name=["--project-name", "-p"])] = None
    """Name of the app instead of the file's own or the directory's."""
    env_file: tuple[Path, ...] = ()
    """File with variables instead of `.env`."""
    profile: tuple[str, ...] = ()
    """Profile to enable; may be given several times."""
    zone: tuple[str, ...] = ()
    """Zone for services that name none; may be given several times."""


DEFAULT_PROJECT = ProjectOptions()


def load(files: Sequence[Path], options: ProjectOptions) -> "Project":
    """Read the project and say its warnings.

    Raises:
        Failure: it has errors; all of them have been printed.
    """
    from skep.compose import ComposeError, load_project

    directory, chosen = _places([*files, *options.file])
    try:
        project = load_project(
            chosen or None,
            directory=directory,
            name=options.project_name,
            env_files=options.env_file,
            environment=os.environ,
            profiles=options.profile,
        )
    except ComposeError as error:
        for position, message in error.errors:
            complain(f"{position}: {message}")
        raise Failure("The Compose file cannot be used as it is.", Exit.INVALID) from error
    for warning in project.warnings:
        warn(warning)
    return _in_zones(project, options.zone)


def _in_zones(project: "Project", zones: tuple[str, ...]) -> "Project":
    """What the command line says counts before what the file says of the app."""
    if not zones:
        return project
    return msgspec.structs.replace(project, x_skep=msgspec.structs.replace(project.x_skep, zones=zones))


def _places(paths: list[Path]) -> tuple[Path | None, list[Path]]:
    """A directory stands for the Compose file in it."""
    directories = [path for path in paths if path.is_dir()]
    if not directories:
        return None, paths
    if len(paths) > 1:
        raise Failure(f"Give either Compose files or one directory; {directories[0]} is one.", Exit.INVALID)
    return directories[0], []

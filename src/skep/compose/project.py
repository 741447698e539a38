"""A Compose project: what its files say, typed, with the client's own files read in."""

from pathlib import Path

import msgspec

from skep.compose.problems import ComposeWarning
from skep.documents import Position
from skep.model.spec import AppExtensions, AppFile, AppNetwork, AppVolume, ServiceSpec


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """How to make the image of a service.  `context` is an absolute directory of the client;
    `dockerfile` is seen from there."""

    context: Path
    dockerfile: str = "Dockerfile"
    dockerfile_inline: str | None = None
    args: dict[str, str] = {}
    target: str | None = None
    labels: dict[str, str] = {}
    no_cache: bool = False
    tags: tuple[str, ...] = ()


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One enabled service.  With `build`, `spec.image` is the name the built image goes by:
    `image` of the file, or `project-service`."""

    name: str
    position: Position
    spec: ServiceSpec
    build: Build | None = None
    profiles: tuple[str, ...] = ()
    pull_policy: str = "missing"
    """always, never, missing, build, daily, weekly or every_…"""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """The enabled services and whatever else of the project they use.

    `disabled` are services whose profiles are not active.
    """

    name: str
    directory: Path
    services: dict[str, Service]
    networks: dict[str, AppNetwork] = {}
    volumes: dict[str, AppVolume] = {}
    configs: dict[str, AppFile] = {}
    secrets: dict[str, AppFile] = {}
    x_skep: AppExtensions = AppExtensions()
    disabled: tuple[str, ...] = ()
    warnings: tuple[ComposeWarning, ...] = ()

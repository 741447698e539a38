"""Loads a project: finds its files, reads them into one tree, and the tree into services and resources."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from skep.compose.attachments import DEFAULT
from skep.compose.consistency import check_consistency
from skep.compose.cursor import Cursor
from skep.compose.dependencies import with_link_aliases
from skep.compose.discovery import (
    active_profiles,
    default_env_files,
    find_files,
    named_files,
    normalised_name,
)
from skep.compose.interpolation import interpolate
from skep.compose.loading import STDIN, Loader
from skep.compose.problems import Problems
from skep.compose.project import Project, Service
from skep.compose.resources import read_content, read_network, read_volume
from skep.compose.rollouts import read_app_extensions
from skep.compose.services import Known, read_service
from skep.compose.support import check_support
from skep.compose.surroundings import Surroundings
from skep.documents import Node, Position
from skep.model.errors import InvalidInput
from skep.model.names import check_name
from skep.model.spec import AppNetwork

T = TypeVar("T")


def load_project(
    files: Sequence[Path] | None = None,
    *,
    directory: Path | None = None,
    name: str | None = None,
    env_files: Sequence[Path] = (),
    environment: Mapping[str, str],
    profiles: Collection[str] = (),
) -> Project:
    """The project that the files describe, with everything it uses read in.

    Without `files` they are COMPOSE_FILE, or the nearest compose.yaml upwards from `directory` (default: the
    working directory) with its override.  The path `-` is standard input.  Relative paths in the files are
    seen from `directory`, else from where the first file lies.  `environment` is the caller's; `env_files`
    (default: `.env` there) gives way to it.

    Raises:
        ComposeError: all that is wrong, each with its place.
    """
    start = Path.cwd() / (directory or "")
    problems = Problems()
    paths = _files(files, start, environment, problems)
    home = start if directory is not None or paths[0] == STDIN else paths[0].parent
    loader = Loader(environment, home, problems)
    chosen = [Path.cwd() / file for file in env_files] or default_env_files(environment, home)
    variables = {**loader.env_files(chosen, environment), **environment}
    trees = [(path, loader.read(path)) for path in paths]
    project = _name(name, variables, trees, home, problems)
    variables["COMPOSE_PROJECT_NAME"] = project
    tree = loader.merged(trees, home, variables)
    around = Surroundings(project, home, variables, problems)
    return _Reader(Cursor(tree, "", problems), around, active_profiles(variables, tuple(profiles))).project()


def _files(
    files: Sequence[Path] | None, start: Path, environment: Mapping[str, str], problems: Problems
) -> list[Path]:
    if files:
        return [file if file == STDIN else Path.cwd() / file for file in files]
    loader = Loader(environment, start, problems)
    early = loader.env_files(default_env_files(environment, start), environment)
    found = named_files({**early, **environment}, start) or find_files(start)
    if not found:
        problems.error(Position(str(start), 1), "there is no compose.yaml here or in a directory above")
    problems.check()
    return found


def _name(
    given: str | None,
    variables: Mapping[str, str],
    trees: Sequence[tuple[Path, Node]],
    home: Path,
    problems: Problems,
) -> str:
    """`given`, COMPOSE_PROJECT_NAME, `name:` of the last file that has one, or that of the directory."""
    position = trees[0][1].position
    name = given or variables.get("COMPOSE_PROJECT_NAME")
    if not name:
        for _, tree in trees:
            written = Cursor(tree, "", problems).get("name")
            if isinstance(written.node.value, str) and written.node.value:
                name, position = _interpolated(written.node, variables), written.position
    name = name or normalised_name(home.name)
    try:
        return check_name(name, "The project name")
    except InvalidInput as error:
        problems.error(
            position, error.message if name else "the project needs a name: write `name:` or use -p"
        )
        problems.check()
        raise


def _interpolated(node: Node, variables: Mapping[str, str]) -> str:
    # What is wrong with it is found again when the whole file is interpolated.
    return str(interpolate(node, variables, Problems()).value)


class _Reader(msgspec.Struct):
    """Reads the one tree of a project."""

    root: Cursor
    around: Surroundings
    profiles: frozenset[str]

    def project(self) -> Project:
        enabled, disabled = self._split()
        check_support(self._enabled_only(enabled))
        known = self._known(enabled, disabled)
        services = {name: read_service(name, cursor, known, self.around) for name, cursor in enabled.items()}
        services = self._linked(enabled, services)
        networks = self._networks(services)
        check_consistency(enabled, {name: service.spec for name, service in services.items()}, networks)
        project = self._with_resources(services, networks, tuple(disabled))
        self.around.problems.check()
        return replace(project, warnings=tuple(self.around.problems.warnings))

    def _split(self) -> tuple[dict[str, Cursor], dict[str, Cursor]]:
        """The services whose profiles are active, and the others."""
        enabled: dict[str, Cursor] = {}
        disabled: dict[str, Cursor] = {}
        for name, cursor in self.root.get("services").entries():
            (enabled if self._is_enabled(cursor) else disabled)[name] = cursor
        if not enabled:
            at = self.root.get("services")
            at.error("every service belongs to a profile; enable one" if disabled else "there is no service")
            self.around.problems.check()
        return enabled, disabled

    def _is_enabled(self, service: Cursor) -> bool:
        wanted = service.get("profiles").texts()
        return not wanted or "*" in self.profiles or not self.profiles.isdisjoint(wanted)

    def _enabled_only(self, enabled: Mapping[str, Cursor]) -> Cursor:
        fields = {key: cursor.node for key, cursor in self.root.entries()}
        services: dict[str, Node] = {name: cursor.node for name, cursor in enabled.items()}
        fields["services"] = Node(services, fields["services"].position)
        return Cursor(Node(fields, self.root.position), "", self.root.problems)

    def _known(self, enabled: Mapping[str, Cursor], disabled: Mapping[str, Cursor]) -> Known:
        jobs = {
            other
            for cursor in enabled.values()
            for other, entry in cursor.get("depends_on").entries()
            if entry.get("condition").node.value == "service_completed_successfully"
        }
        return Known(
            enabled=frozenset(enabled),
            disabled=frozenset(disabled),
            jobs=frozenset(jobs),
            networks=self._names("networks"),
            volumes=self._names("volumes"),
            configs=self._names("configs"),
            secrets=self._names("secrets"),
        )

    def _names(self, section: str) -> frozenset[str]:
        return frozenset(name for name, _ in self.root.get(section).entries())

    def _linked(self, cursors: Mapping[str, Cursor], services: dict[str, Service]) -> dict[str, Service]:
        specs = with_link_aliases(cursors, {name: service.spec for name, service in services.items()})
        return {name: replace(service, spec=specs[name]) for name, service in services.items()}

    def _networks(self, services: Mapping[str, Service]) -> dict[str, AppNetwork]:
        used = {name for service in services.values() for name in service.spec.networks}
        implicit = {DEFAULT: AppNetwork()} if DEFAULT in used else {}
        return implicit | self._section("networks", used, read_network)

    def _with_resources(
        self, services: dict[str, Service], networks: dict[str, AppNetwork], disabled: tuple[str, ...]
    ) -> Project:
        specs = [service.spec for service in services.values()]
        volumes = {mount.source for spec in specs for mount in spec.mounts if mount.type == "volume"}
        configs = {file.source for spec in specs for file in spec.configs}
        secrets = {file.source for spec in specs for file in spec.secrets}
        environment = self.around.environment
        return Project(
            name=self.around.project,
            directory=self.around.directory,
            services=services,
            networks=networks,
            volumes=self._section("volumes", volumes, read_volume),
            configs=self._section("configs", configs, lambda cursor: read_content(cursor, environment)),
            secrets=self._section("secrets", secrets, lambda cursor: read_content(cursor, environment)),
            x_skep=read_app_extensions(self.root.get("x-skep")),
            disabled=disabled,
        )

    def _section(self, section: str, used: set[str], read: Callable[[Cursor], T]) -> dict[str, T]:
        """What the enabled services use of a section, as Compose does: what nobody uses is not made."""
        return {name: read(cursor) for name, cursor in self.root.get(section).entries() if name in used}

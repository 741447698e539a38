"""A project in a folder of its own, loaded as the command line does."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from skep.compose import ComposeError, Project, load_project
from skep.model.spec import ServiceSpec


class Load(Protocol):
    def __call__(
        self,
        text: str,
        *,
        files: Mapping[str, str] = ...,
        names: Sequence[str] | None = ...,
        name: str | None = ...,
        environment: Mapping[str, str] = ...,
        profiles: Collection[str] = ...,
        env_files: Sequence[Path] = ...,
    ) -> Project: ...


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    return folder


@pytest.fixture
def load(home: Path) -> Load:
    """Write compose.yaml and other files into the folder of the project, and load it."""

    def loaded(
        text: str,
        *,
        files: Mapping[str, str] | None = None,
        names: Sequence[str] | None = None,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
        profiles: Collection[str] = (),
        env_files: Sequence[Path] = (),
    ) -> Project:
        for path, content in {"compose.yaml": text, **(files or {})}.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(content)
        return load_project(
            [home / path for path in names or ["compose.yaml"]],
            name=name,
            environment=environment or {},
            profiles=profiles,
            env_files=env_files,
        )

    return loaded


@pytest.fixture
def web(load: Load) -> Callable[..., ServiceSpec]:
    """The specification of one service `web` from the lines of its body."""

    def spec(body: str, rest: str = "", **options: object) -> ServiceSpec:
        return load(_web(body, rest), **options).services["web"].spec  # type: ignore[arg-type]

    return spec


@pytest.fixture
def refused(load: Load) -> Callable[..., str]:
    """The message for one service `web` that is wrong."""

    def message(body: str, rest: str = "", **options: object) -> str:
        with pytest.raises(ComposeError) as caught:
            load(_web(body, rest), **options)  # type: ignore[arg-type]
        return caught.value.message

    return message


@pytest.fixture
def warned(load: Load) -> Callable[..., str]:
    """The warnings for one service `web`, one a line."""

    def messages(body: str, rest: str = "", **options: object) -> str:
        return "\n".join(map(str, load(_web(body, rest), **options).warnings))  # type: ignore[arg-type]

    return messages


def _web(body: str, rest: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    image = "" if "image:" in body or "build:" in body else "    image: web:1\n"
    return f"services:\n  web:\n{image}{lines}\n{rest}"

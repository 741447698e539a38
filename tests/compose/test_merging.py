"""Several files: overrides, extends, include, and where files are looked for."""

import os
from pathlib import Path

import pytest
from tests.compose.conftest import Load

from skep.compose import ComposeError, Project, load_project

BASE = """services:
  web:
    image: web:1
    command: [a, b]
    ports: ['8080:80']
    environment: {A: 1, B: 2, CALLER: x}
    volumes: ['data:/data', 'other:/other']
    depends_on: [db]
    networks: [front]
    healthcheck: {test: [CMD, a], interval: 5s}
    cap_add: [NET_ADMIN]
  db: {image: db:1}
networks: {front: , back: }
volumes: {data: , other: }
"""


def merged(load: Load, override: str, environment: dict[str, str] | None = None) -> Project:
    files = {"override.yaml": override}
    return load(BASE, files=files, names=["compose.yaml", "override.yaml"], environment=environment or {})


def test_maps_are_merged_and_scalars_replaced(load: Load) -> None:
    override = """services:
  web:
    image: web:2
    environment: [B=3, C=4, CALLER]
    healthcheck: {interval: 9s}
    depends_on: {cache: {condition: service_started}}
    networks: {back: {aliases: [w]}}
  cache: {image: cache}
"""
    project = merged(load, override, {"CALLER": "y"})
    web = project.services["web"].spec

    assert web.image == "web:2"
    assert web.environment == {"A": "1", "B": "3", "CALLER": "y", "C": "4"}
    assert web.healthcheck is not None
    assert (web.healthcheck.test, web.healthcheck.interval) == (("CMD", "a"), 9.0)
    assert set(web.depends_on) == {"db", "cache"}
    assert set(web.networks) == {"front", "back"}


def test_lists_are_appended_by_what_makes_them_one(load: Load) -> None:
    override = """services:
  web:
    command: [c]
    ports: ['8080:80', '8081:80']
    volumes: ['other:/data:ro']
    cap_add: [SYS_TIME, NET_ADMIN]
"""
    web = merged(load, override).services["web"].spec

    assert web.command == ("c",)
    assert [port.published for port in web.ports] == [8080, 8081]
    assert [(mount.source, mount.target) for mount in web.mounts] == [("other", "/data"), ("other", "/other")]
    assert web.cap_add == ("CAP_NET_ADMIN", "CAP_SYS_TIME")


def test_reset_removes_and_override_replaces(load: Load) -> None:
    override = """services:
  web:
    ports: !reset []
    command: !reset null
    environment: {A: !reset null}
    volumes: !override ['/only']
    depends_on: !override {}
  db: !reset null
"""
    project = merged(load, override)
    web = project.services["web"].spec

    assert (web.ports, web.command) == ((), None)
    assert web.environment == {"B": "2", "CALLER": "x"}
    assert [mount.target for mount in web.mounts] == ["/only"]
    assert set(project.services) == {"web"}


def test_tags_without_an_earlier_file_are_harmless(load: Load) -> None:
    spec = (
        load("services: {web: {image: x, ports: !reset ['1:1'], cap_add: !override [KILL]}}")
        .services["web"]
        .spec
    )

    assert (spec.ports, spec.cap_add) == ((), ("CAP_KILL",))


def test_errors_name_the_file_and_line_they_are_in(load: Load) -> None:
    with pytest.raises(ComposeError) as caught:
        merged(load, "services:\n  web:\n    cap_add: [FLY]\n")

    assert "override.yaml:3: services.web.cap_add[1]: 'FLY'" in caught.value.message


def test_services_extend_others_in_the_same_and_other_files(load: Load, home: Path) -> None:
    text = """services:
  base: {image: base, environment: {A: 1, B: 1}, ports: ['1:1']}
  web: {extends: base, environment: {B: 2}, ports: !reset []}
  far:
    extends: {file: common/far.yaml, service: leaf}
    environment: {C: 3}
"""
    far = """services:
  leaf: {extends: {service: root}, environment: {B: 2}, env_file: near.env}
  root: {image: root, environment: {A: 1}, volumes: ['./data:/data']}
"""
    project = load(text, files={"common/far.yaml": far, "common/near.env": "E=5"})
    web, far_spec = project.services["web"].spec, project.services["far"].spec

    assert (web.image, web.environment, web.ports) == ("base", {"A": "1", "B": "2"}, ())
    assert far_spec.image == "root"
    assert far_spec.environment == {"E": "5", "A": "1", "B": "2", "C": "3"}
    assert far_spec.mounts[0].source == str(home / "common/data")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {extends: b, image: x}, b: {extends: a}}", "in a circle: a → b → a"),
        ("services: {a: {extends: a}}", "in a circle: a → a"),
        ("services: {a: {extends: nobody}}", "no service 'nobody' in compose.yaml"),
        ("services: {a: {extends: {file: none.yaml, service: a}}}", "compose.yaml:1: cannot read"),
        ("services: {a: {extends: {file: back.yaml, service: b}}}", "in a circle: a → b → a"),
    ],
)
def test_extending_what_cannot_be_extended_is_refused(load: Load, text: str, words: str) -> None:
    back = "services: {b: {extends: {file: compose.yaml, service: a}}}"

    with pytest.raises(ComposeError) as caught:
        load(text, files={"back.yaml": back})

    assert words in caught.value.message


def test_included_projects_have_their_own_directory_and_env_file(load: Load, home: Path) -> None:
    text = """include: [infra/compose.yaml, {path: [other.yaml], env_file: other.env}]
services: {web: {image: x, depends_on: [db, other]}}
"""
    files = {
        "infra/compose.yaml": "services: {db: {image: 'db:${TAG}', volumes: [./d:/d, v:/v]}}\nvolumes: {v: }",
        "infra/.env": "TAG=infra",
        "other.yaml": "services: {other: {image: 'o:${TAG}'}}",
        "other.env": "TAG=other",
    }
    project = load(text, files=files)

    assert project.services["db"].spec.image == "db:infra"
    assert project.services["db"].spec.mounts[0].source == str(home / "infra/d")
    assert project.services["other"].spec.image == "o:other"
    assert "v" in project.volumes
    assert load(text, files=files, environment={"TAG": "shell"}).services["db"].spec.image == "db:shell"


def test_including_oneself_or_a_conflict_is_told(load: Load) -> None:
    with pytest.raises(ComposeError, match="includes itself"):
        load("include: [a.yaml]\nservices: {}", files={"a.yaml": "include: [a.yaml]"})

    project = load(
        "include: [a.yaml]\nservices: {web: {image: mine}}",
        files={"a.yaml": "services: {web: {image: theirs, hostname: h}}"},
    )

    assert project.services["web"].spec.image == "mine"
    assert "services.web: laid over what a.yaml:1 defines" in str(project.warnings[0])


def test_files_are_found_upwards_with_their_override(home: Path) -> None:
    (home / "docker-compose.yml").write_text("services: {web: {image: x}}")
    (home / "docker-compose.override.yml").write_text("services: {web: {hostname: h}}")
    (home / "deep/er").mkdir(parents=True)

    project = load_project(directory=home / "deep/er", environment={})

    assert project.services["web"].spec.hostname == "h"
    with pytest.raises(ComposeError, match="there is no compose"):
        load_project(directory=Path("/proc"), environment={})


def test_compose_file_and_its_separator_choose_files(home: Path) -> None:
    (home / "a.yml").write_text("services: {web: {image: x}}")
    (home / "b.yml").write_text("services: {web: {hostname: h}}")
    (home / ".env").write_text("COMPOSE_FILE=a.yml,b.yml\nCOMPOSE_PATH_SEPARATOR=,")

    assert load_project(directory=home, environment={}).services["web"].spec.hostname == "h"


@pytest.mark.parametrize(
    ("given", "environment", "text", "name"),
    [
        (None, {}, "", "shop"),
        (None, {}, "name: from-${N}\n", "from-file"),
        (None, {"COMPOSE_PROJECT_NAME": "variable"}, "name: file\n", "variable"),
        ("flag", {"COMPOSE_PROJECT_NAME": "variable"}, "name: file\n", "flag"),
    ],
)
def test_the_name_of_a_project(
    load: Load, given: str | None, environment: dict[str, str], text: str, name: str
) -> None:
    image = "services: {web: {image: 'x:${COMPOSE_PROJECT_NAME}'}}"

    project = load(text + image, name=given, environment={"N": "file", **environment})

    assert project.name == name
    assert project.services["web"].spec.image == f"x:{name}"


def test_a_name_is_made_from_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "_My Shop.2-"
    folder.mkdir()
    (folder / "compose.yaml").write_text("services: {web: {image: x}}")

    assert load_project(directory=folder, environment={}).name == "myshop2"


def test_a_wrong_name_is_refused(load: Load) -> None:
    with pytest.raises(ComposeError, match=r"compose.yaml:1: The project name 'Big!'"):
        load("name: Big!\nservices: {web: {image: x}}")


def test_profiles_choose_services(load: Load) -> None:
    text = """services:
  web: {image: x, depends_on: {debug: {condition: service_started, required: false}}}
  debug: {image: x, profiles: [debug], privileged: true, env_file: none}
  tools: {image: x, profiles: [tools, more]}
"""
    assert load(text).disabled == ("debug", "tools")
    assert set(load(text).services) == {"web"}
    assert set(load(text, profiles=["more"]).services) == {"web", "tools"}
    assert set(load(text, environment={"COMPOSE_PROFILES": "a,tools"}).services) == {"web", "tools"}
    with pytest.raises(ComposeError, match="privileged"):
        load(text, profiles=["*"])
    with pytest.raises(ComposeError, match="belongs to a profile"):
        load("services: {web: {image: x, depends_on: [d]}, d: {image: x, profiles: [p]}}")
    with pytest.raises(ComposeError, match="every service belongs to a profile"):
        load("services: {d: {image: x, profiles: [p]}}")


def test_standard_input_is_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.write(write, b"services: {web: {image: x, labels: [a, a]}}")
    os.close(write)

    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ComposeError, match=r"<stdin>:1: services.web.labels: .*twice"):
            load_project([Path("-")], directory=home, environment={})

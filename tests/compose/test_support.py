"""The table of what is supported is complete, and the reference page says the same."""

from pathlib import Path
from typing import Any

import pytest
from tests.compose.conftest import Load

from skep.compose.judgement import published_schema
from skep.compose.support import TABLE, table_as_markdown

REFERENCE = Path(__file__).parents[2] / "docs/reference/compose.md"
OURS = {"x-skep"}


def definition(*path: str | int) -> dict[str, Any]:
    found: Any = published_schema()["definitions"]
    for key in path:
        found = found[key]
    properties: dict[str, Any] = found["properties"]
    return properties


def of_service(key: str, *path: str | int) -> tuple[str | int, ...]:
    return ("service", "properties", key, *path)


DEPLOY = ("deployment", "properties")
PLACES: dict[str, tuple[str | int, ...]] = {
    "services.*": ("service",),
    "services.*.build": of_service("build", "oneOf", 1),
    "services.*.depends_on.*": of_service("depends_on", "oneOf", 1, "patternProperties", "^[a-zA-Z0-9._-]+$"),
    "services.*.deploy": ("deployment",),
    "services.*.deploy.placement": (*DEPLOY, "placement"),
    "services.*.deploy.placement.preferences[]": (
        *(*DEPLOY, "placement", "properties", "preferences", "items"),
    ),
    "services.*.deploy.resources": (*DEPLOY, "resources"),
    "services.*.deploy.resources.limits": (*DEPLOY, "resources", "properties", "limits"),
    "services.*.deploy.resources.reservations": (*DEPLOY, "resources", "properties", "reservations"),
    "services.*.deploy.restart_policy": (*DEPLOY, "restart_policy"),
    "services.*.deploy.rollback_config": (*DEPLOY, "rollback_config"),
    "services.*.deploy.update_config": (*DEPLOY, "update_config"),
    "services.*.env_file[]": ("env_file", "oneOf", 1, "items", "oneOf", 1),
    "services.*.healthcheck": ("healthcheck",),
    "services.*.networks.*": of_service(
        "networks", "oneOf", 1, "patternProperties", "^[a-zA-Z0-9._-]+$", "oneOf", 0
    ),
    "services.*.ports[]": of_service("ports", "items", "oneOf", 2),
    "services.*.volumes[]": of_service("volumes", "items", "oneOf", 1),
    "services.*.volumes[].bind": of_service("volumes", "items", "oneOf", 1, "properties", "bind"),
    "services.*.volumes[].volume": of_service("volumes", "items", "oneOf", 1, "properties", "volume"),
    "services.*.volumes[].tmpfs": of_service("volumes", "items", "oneOf", 1, "properties", "tmpfs"),
    "services.*.configs[]": ("service_config_or_secret", "items", "oneOf", 1),
    "services.*.secrets[]": ("service_config_or_secret", "items", "oneOf", 1),
    "services.*.ulimits.*": ("ulimits", "patternProperties", "^[a-z]+$", "oneOf", 1),
    "networks.*": ("network",),
    "networks.*.ipam": ("network", "properties", "ipam"),
    "networks.*.ipam.config[]": ("network", "properties", "ipam", "properties", "config", "items"),
    "volumes.*": ("volume",),
    "configs.*": ("config",),
    "secrets.*": ("secret",),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_property_of_the_schema_has_a_place_in_the_table(place: str) -> None:
    assert set(TABLE[place]) - OURS == set(definition(*PLACES[place]))


def test_every_property_of_the_whole_file_has_a_place_in_the_table() -> None:
    assert set(TABLE[""]) - OURS == set(published_schema()["properties"])
    assert set(TABLE) == {"", *PLACES}


def test_the_reference_page_holds_the_table() -> None:
    assert table_as_markdown().strip() in REFERENCE.read_text()


def test_extensions_of_others_are_ignored_and_ours_only_where_it_means_something(load: Load) -> None:
    text = "x-mine: {a: 1}\nservices: {web: {image: x, x-mine: [1], deploy: {x-skep: {}}}}"

    warnings = [str(warning) for warning in load(text).warnings]

    assert [warning.split(": ")[1] for warning in warnings] == ["services.web.deploy.x-skep"]

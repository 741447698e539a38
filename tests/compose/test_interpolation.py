"""`${…}` in Compose files."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compose.conftest import Load

from skep.compose.interpolation import InterpolationError, Variables
from skep.model.spec import ServiceSpec

VALUES = {"A": "one", "EMPTY": "", "B": "two"}


def expand(text: str, **values: str) -> str:
    return Variables(VALUES | values).substitute(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A ${A} ${B}", "one one two"),
        ("$$A $${A} $$", "$A ${A} $"),
        ("${A:-d} ${EMPTY:-d} ${NO:-d}", "one d d"),
        ("${A-d}|${EMPTY-d}|${NO-d}", "one||d"),
        ("${A:+r}|${EMPTY:+r}|${NO:+r}", "r||"),
        ("${A+r}|${EMPTY+r}|${NO+r}", "r|r|"),
        ("${A:?gone}${EMPTY?gone}", "one"),
        ("${NO:-${EMPTY:-${B}}}", "two"),
        ("${NO:-$A-$B}", "one-two"),
        ('${NO:-{"a": {}}}', '{"a": {}}'),
        ("${NO:-a:-b}", "a:-b"),
        ("$1 $(date) 5$ $", "$1 $(date) 5$ $"),
        ("$NO.", "."),
        ("${NO:-$$x}", "$x"),
    ],
)
def test_every_form_of_compose(text: str, result: str) -> None:
    assert expand(text) == result


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${1}", "${A/b/c}", "${A!}", "${-x}", "${NO:-${A}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(InterpolationError):
        expand(text)


def test_a_required_variable_tells_why_it_is_wanted() -> None:
    with pytest.raises(InterpolationError, match="required variable NO is missing a value: ask one"):
        expand("${NO:?ask $A}")
    with pytest.raises(InterpolationError, match="EMPTY"):
        expand("${EMPTY:?}")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InterpolationError, match="nested deeper"):
        expand("${NO:-" * 5000 + "x" + "}" * 5000)


def test_a_text_bomb_is_refused() -> None:
    with pytest.raises(InterpolationError, match="too much text"):
        expand("$BIG" * 1000, BIG="x" * 1_000_000)


@given(st.text())
def test_text_with_doubled_dollars_comes_out_as_it_was(text: str) -> None:
    assert expand(text.replace("$", "$$")) == text


@given(st.text(), st.text())
def test_values_are_never_looked_into_again(value: str, around: str) -> None:
    plain = around.replace("$", "")

    assert expand(f"{plain} ${{V}}", V=value) == f"{plain} {value}"


@given(st.text(alphabet=st.characters(exclude_characters="{}$")))
def test_a_default_stands_for_what_is_unset_only(default: str) -> None:
    assert expand(f"${{NO-{default}}}") == default
    assert expand(f"${{A-{default}}}") == "one"


@given(st.text(alphabet="${}A:-+?x ", max_size=40))
def test_any_template_is_expanded_or_refused(text: str) -> None:
    try:
        expand(text)
    except InterpolationError as error:
        assert str(error)  # noqa: PT017


def test_interpolation_reaches_values_and_not_keys(web: Callable[..., ServiceSpec]) -> None:
    spec = web("labels:\n  $KEY: $KEY\n  list: ${N}", environment={"KEY": "v", "N": "3"})

    assert spec.labels == {"$KEY": "v", "list": "3"}


def test_numbers_and_booleans_may_be_variables(web: Callable[..., ServiceSpec]) -> None:
    waits = "depends_on: {db: {condition: service_started, required: '${NO}'}}"
    body = f"scale: ${{N}}\ninit: ${{YES}}\nports: ['${{P}}:80']\n{waits}"

    spec = web(body, environment={"N": "3", "YES": "true", "P": "8080", "NO": "false"})

    assert (spec.replicas, spec.init, spec.ports[0].published) == (3, True, 8080)


def test_an_unset_variable_is_warned_about(warned: Callable[..., str]) -> None:
    assert "compose.yaml:4: services.web.command: variable NO is not set" in warned("command: echo $NO")


def test_the_callers_environment_comes_before_the_env_file(load: Load) -> None:
    text = "services: {web: {image: 'web:${TAG}', labels: {b: $ONLY}}}"

    project = load(text, files={".env": "TAG=file\nONLY=file\n"}, environment={"TAG": "shell"})

    assert project.services["web"].spec.image == "web:shell"
    assert project.services["web"].spec.labels == {"b": "file"}

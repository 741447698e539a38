"""Whatever a file holds, the answer is a ComposeError with a place, and soon."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.compose.conftest import Load

from skep.compose import ComposeError, load_project, to_app_spec
from skep.compose.judgement import published_schema
from skep.model.spec import AppSpec


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 30


def problem(load: Load, text: str, **options: Any) -> str:
    started = time.monotonic()
    with pytest.raises(ComposeError) as caught:
        load(text, **options)
    assert time.monotonic() - started < 5
    assert len(caught.value.message) < 20_000
    return caught.value.message


BOMB = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20))])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("[]", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("services: []", "services: must be a mapping, not a list"),
        ("services: {}", "there is no service"),
        ("name: x", "there is no service"),
        ("services: {web: }", "services.web: must be a mapping, not empty"),
        ("services: {web: {image: x}}\nsurvices: {}", "did you mean 'services'?"),
        (BOMB, "aliases"),
        ("services: " + "{a: " * 1000, "deeper"),
        ("services: {web: !!python/object/apply:os.system [id]}", "!!python/object/apply:os.system"),
        ("services: {web: {image: !vault x}}", "!vault"),
        ("services: {web: {image: x, command: [\"a\\0b\"]}}", "NUL"),
        ("services: {web: {image: x, labels: {\"a\\0b\": c}}}", "NUL"),
        ("services: {web: {image: '" + "${A:-" * 5000 + "}" * 5000 + "'}}", "nested deeper"),
        ("services: {web: {image: '${A'}}", "no closing brace"),
        ("services: {web: {image: x, command: '${A:?set A}'}}", "A is missing a value: set A"),
        ("services: {web: {image: x, bad/name: 1}}", "unknown key 'bad/name'"),
        ("services: {'a b': {image: x}}", "services: the name 'a b' is not allowed"),
        ("services: {web: {image: " + "x" * 100_000 + "}}", "no image reference"),
        ("services: {web: {image: x, volumes: ['" + "a" * 100_000 + ":/x']}}", "is not defined"),
        ("services: {web: {image: x, ports: [" + "1," * 20_000 + "2]}}", "given twice"),
        ("services: {" + ",".join(f"s{n}: {{imagee: x}}" for n in range(3000)) + "}", "more problems"),
        ("services: {web: {image: x, env_file: " + "a" * 5000 + "}}", "cannot read"),
        ("services: {web: {build: " + "a" * 5000 + "}}", "no directory"),
        ("services: {web: {image: x, healthcheck: {retries: .nan, test: x}}}", "whole number"),
        ("services: {web: {image: x, mem_limit: .inf}}", "no size"),
        ("services: {web: {image: x, shm_size: -5}}", "no size"),
        ("services: {web: {image: x, pids_limit: 1e300}}", "must be from -1"),
        ("include: [/dev/zero]", "no regular file"),
        ("services: {web: {image: x, extends: {file: /proc/self/mem, service: x}}}", "cannot read"),
    ],
    ids=range(31),
)  # fmt: skip
def test_files_that_make_no_sense(load: Load, text: str, words: str) -> None:
    assert words in problem(load, text)


def test_a_file_that_is_no_text_is_refused(home: Path) -> None:
    (home / "compose.yaml").write_bytes(b"services:\n  web: {image: \xff\xfe}\n")

    with pytest.raises(ComposeError, match=r"compose.yaml:2: not UTF-8"):
        load_project(directory=home, environment={})


def test_a_large_file_is_refused(load: Load) -> None:
    assert "larger than" in problem(load, "#" * 3_000_000)


@pytest.mark.parametrize("section", ["configs", "secrets"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.mkdir(), "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
        (lambda path: path.write_bytes(b"x" * (512 * 1024 + 1)), "larger than 512 KiB"),
        (lambda path: None, "No such file"),
    ],
    ids=["loop", "fifo", "directory", "device", "large", "missing"],
)
def test_contents_come_from_regular_small_files(
    load: Load, home: Path, section: str, make: Callable[[Path], object], words: str
) -> None:
    make(home / "content")
    text = f"services: {{web: {{image: x, {section}: [c]}}}}\n{section}: {{c: {{file: ./content}}}}"

    assert words in problem(load, text)


def test_a_file_at_the_limit_and_outside_the_project_is_read(load: Load, tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"\0" * (512 * 1024))
    text = "services: {web: {image: x, configs: [c]}}\nconfigs: {c: {file: ../content}}"

    assert load(text).configs["c"].content == b"\0" * (512 * 1024)


def test_long_chains_of_services_are_followed(load: Load) -> None:
    count = 1000
    services = [f"  s{n}: {{image: x, depends_on: [s{n + 1}]}}" for n in range(count)]
    chain = "\n".join(["services:", *services, f"  s{count}: {{image: x"])

    assert len(load(chain + "}").services) == count + 1
    assert "wait for each other in a circle: s0 → s1" in problem(load, chain + ", depends_on: [s0]}")


@pytest.mark.parametrize("key", ["ports", "expose"])
def test_many_ranges_of_ports_are_refused_before_they_are_written_out(load: Load, key: str) -> None:
    ranges = ",".join(f"'{n}-{n + 1000}'" for n in range(1, 3000))

    assert "1024 ports" in problem(load, f"services: {{web: {{image: x, {key}: [{ranges}]}}}}")


def test_include_bombs_are_refused(load: Load) -> None:
    files = {f"f{n}.yaml": f"include: [f{n + 1}.yaml, f{n + 1}.yaml]\nservices: {{}}" for n in range(20)}
    files["f20.yaml"] = "services: {}"

    assert "more than 100 files" in problem(load, "include: [f0.yaml]", files=files)


def test_substituted_text_is_limited_over_the_whole_project(load: Load) -> None:
    text = "x-a: &a '${BIG}'\nx-b: [" + "*a," * 1000 + "]"

    assert "too much text" in problem(load, text, environment={"BIG": "x" * 100_000})


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["1m", "80:80", "./x", "a:/b:ro", "${A}", "always", "x:1", "8000-8002", "10s", "/t", "web", "true"]
    ),
)
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def _shaped(definition: str) -> st.SearchStrategy[Any]:
    """Mappings with the keys of a definition of the schema and any value at all."""
    keys = sorted(published_schema()["definitions"][definition]["properties"])
    return st.dictionaries(st.sampled_from(keys), _values(), max_size=6)


def _values() -> st.SearchStrategy[Any]:
    known = st.sampled_from(
        [
            "source",
            "target",
            "type",
            "published",
            "condition",
            "file",
            "service",
            "limits",
            "memory",
            "test",
            "mode",
        ]
    )
    mappings = st.dictionaries(
        st.one_of(known, st.sampled_from(["web", "default", "v"])), _ANYTHING, max_size=3
    )
    return st.one_of(_ANYTHING, mappings, st.lists(st.one_of(mappings, _SCALARS), max_size=3))


_DOCUMENTS = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["web", "db"]), _shaped("service"), min_size=1)},
    optional={
        "networks": st.dictionaries(st.sampled_from(["default", "n"]), _shaped("network")),
        "volumes": st.dictionaries(st.sampled_from(["v", "w"]), _shaped("volume")),
        "configs": st.dictionaries(st.sampled_from(["web", "c"]), _shaped("config")),
        "secrets": st.dictionaries(st.sampled_from(["web", "s"]), _shaped("secret")),
    },
)


def _load(folder: Path, *texts: str) -> None:
    files = []
    for index, text in enumerate(texts):
        files.append(folder / f"{index}.yaml")
        files[-1].write_bytes(text.encode(errors="surrogatepass"))
    with suppress(ComposeError):
        project = load_project(files, name="app", environment={"A": "x"})
        app = to_app_spec(project, dict.fromkeys(project.services, "built:1"))
        assert msgspec.convert(msgspec.to_builtins(app), AppSpec) == app


_FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FUZZ
@given(st.text())
def test_any_text_gives_a_project_or_a_compose_error(tmp_path: Path, text: str) -> None:
    _load(tmp_path, text)


@_FUZZ
@given(_DOCUMENTS)
def test_any_values_give_a_valid_app_or_a_compose_error(tmp_path: Path, data: Any) -> None:
    _load(tmp_path, yaml.safe_dump(data))


@_FUZZ
@given(_DOCUMENTS, _DOCUMENTS)
def test_any_two_files_merge_or_give_a_compose_error(tmp_path: Path, one: Any, two: Any) -> None:
    _load(tmp_path, yaml.safe_dump(one), yaml.safe_dump(two))


_ONE_KEY = st.sampled_from(sorted(published_schema()["definitions"]["service"]["properties"])).flatmap(
    lambda key: st.tuples(st.just(key), _values())
)


@settings(_FUZZ, max_examples=600)
@given(_ONE_KEY)
def test_any_value_of_any_key_is_taken_or_refused(tmp_path: Path, entry: tuple[str, Any]) -> None:
    _load(
        tmp_path,
        yaml.safe_dump({"services": {"web": {"image": "x", entry[0]: entry[1]}}, "volumes": {"v": None}}),
    )

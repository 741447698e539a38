"""What is read from a Dockerfile before it runs."""

import pytest

from skep.model.errors import InvalidInput, Unsupported
from skep.providers.local.images.dockerfiles import base_references, check_instructions, expand_bases


@pytest.mark.parametrize(
    ("dockerfile", "args", "expected"),
    [
        ("FROM debian:12\nRUN true\n", {}, ["debian:12"]),
        ("from debian:12 as build\nFROM scratch\nCOPY --from=build /a /a\n", {}, ["debian:12"]),
        ("FROM a AS Build\nFROM build\n", {}, ["a"]),
        ("FROM a\nFROM b\nCOPY --from=0 /x /x\nCOPY --from=c:1 --chown=1 /x /x\n", {}, ["a", "b", "c:1"]),
        ("ARG V=12\nFROM debian:${V}\n", {}, ["debian:12"]),
        ("ARG V=12\nFROM debian:$V\n", {"V": "13"}, ["debian:13"]),
        ("ARG A=x\nARG B=${A}y\nFROM ${B}\n", {}, ["xy"]),
        ("ARG B\nFROM ${B:-fallback}\n", {}, ["fallback"]),
        ("FROM --platform=linux/amd64 debian:12\n", {}, ["debian:12"]),
        ("# syntax=docker/dockerfile:1\nFROM \\\n  debian:12 \\\n  AS x\n", {}, ["debian:12"]),
        ("FROM a\nRUN --mount=type=bind,from=tools,target=/t ls\n", {}, ["a", "tools"]),
        ("FROM a\nFROM a\n", {}, ["a"]),
        ("FROM scratch\nCOPY x /x\n", {}, []),
    ],
)
def test_base_references_are_all_images_from_outside(
    dockerfile: str, args: dict[str, str], expected: list[str]
) -> None:
    assert base_references(dockerfile, args) == expected


@pytest.mark.parametrize("dockerfile", ["", "RUN true\n", "FROM\n", "ARG X\nFROM ${X}\n", "FROM a b c d\n"])
def test_a_dockerfile_without_a_usable_from_is_refused(dockerfile: str) -> None:
    with pytest.raises(InvalidInput):
        base_references(dockerfile)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=bind,source=.,target=/x ls",
        "RUN --mount=target=/x ls",
        "run --mount=type=secret,id=x cat /run/secrets/x",
        "RUN --network=none --mount=type=cache,target=/c,from=other ls",
        "RUN --mount=type=cache,id=../../x,target=/c ls",
        "RUN --mount=type=cache,target=/c/../../x ls",
        "ONBUILD RUN --mount=type=bind,target=/x ls",
    ],
)
def test_mounts_that_could_lead_to_the_host_are_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        check_instructions(f"FROM a\n{line}\n")


def test_caches_and_memory_may_be_mounted() -> None:
    cache, memory = "--mount=type=cache,target=/var/cache/apt,sharing=locked", "--mount=type=tmpfs,target=/t"

    check_instructions(f"FROM a\nRUN {cache} {memory} ls\n")


def test_another_escape_character_is_refused_because_it_could_hide_instructions() -> None:
    with pytest.raises(Unsupported):
        check_instructions("# escape=`\nFROM a\n")


def test_arguments_in_from_are_replaced_without_moving_other_lines() -> None:
    text = "ARG V=1\nFROM \\\n  base:${V} AS x\nRUN echo ${V}\nFROM x\n"

    assert expand_bases(text, {"V": "2"}) == "ARG V=1\nFROM base:2 AS x\n\nRUN echo ${V}\nFROM x\n"

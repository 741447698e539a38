"""Image references, in the form people write and in the one registries want."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.model.errors import InvalidInput
from skep.model.references import for_registry, normalize

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("written", "kept", "asked"),
    [
        ("redis", "redis:latest", "docker.io/library/redis:latest"),
        ("redis:7", "redis:7", "docker.io/library/redis:7"),
        ("docker.io/library/redis:7", "redis:7", "docker.io/library/redis:7"),
        ("index.docker.io/library/redis", "redis:latest", "docker.io/library/redis:latest"),
        ("team/app:1", "team/app:1", "docker.io/team/app:1"),
        ("docker.io/team/app:1", "team/app:1", "docker.io/team/app:1"),
        ("ghcr.io/team/app", "ghcr.io/team/app:latest", "ghcr.io/team/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("localhost/app:1", "app:1", "docker.io/library/app:1"),
        (f"redis@{DIGEST}", f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (
            f"r.example:443/a/b/c:1@{DIGEST}",
            f"r.example:443/a/b/c:1@{DIGEST}",
            f"r.example:443/a/b/c:1@{DIGEST}",
        ),
    ],
)
def test_a_reference_has_one_form_here_and_one_for_registries(written: str, kept: str, asked: str) -> None:
    assert normalize(written) == kept
    assert for_registry(written) == asked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Redis",
        "redis:",
        "redis:a b",
        "/redis",
        "redis/",
        "../etc",
        "--help/app",
        "a..b/app",
        "a.b-/app",
        "a-" * 100 + "/app",
        "a//b",
        "redis@sha256:short",
        "redis@md5:" + "a" * 32,
        "redis:" + "a" * 129,
        "a/" * 200 + "b",
        "redis\n",
        "redis:ä",
        "r.example:٣/a",
        "--help",
        "-v",
        "$(id)",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an image reference"):
        normalize(text)


@given(st.from_regex(r"[a-z0-9]{1,9}(\.io/[a-z0-9]{1,9}|/[a-z0-9]{1,9})?(:[a-z0-9]{1,5})?", fullmatch=True))
def test_a_normal_form_stays_as_it_is(text: str) -> None:
    once = normalize(text)

    assert normalize(once) == once
    assert normalize(for_registry(once)) == once

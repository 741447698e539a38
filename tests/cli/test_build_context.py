"""What is sent for a build."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from skep.cli.build_context import INLINE_NAME, Context
from skep.cli.failures import Failure


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def files(context: Context) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.stream()))) as tar:
        return {member.name for member in tar if not member.isdir()}


def test_the_whole_directory_is_sent(tmp_path: Path) -> None:
    tree(tmp_path, "Dockerfile", "a/b/c.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("a/b")

    context = Context(tmp_path, "Dockerfile")

    assert files(context) == {"Dockerfile", "a/b/c.txt", "link"}
    assert "empty" in set(context.names())


@pytest.mark.parametrize(
    ("patterns", "sent"),
    [
        ("node_modules", {"a.log", "sub/a.log", "sub/node_modules/x", "docs/keep.md", "docs/drop.md"}),
        ("**/node_modules", {"a.log", "sub/a.log", "docs/keep.md", "docs/drop.md"}),
        ("*.log\nnode_modules/", {"sub/a.log", "sub/node_modules/x", "docs/keep.md", "docs/drop.md"}),
        ("**\n!docs/keep.md", {"docs/keep.md"}),
        ("docs\n!docs/keep.md\n**/*.log\n**/node_modules", {"docs/keep.md"}),
        ("# a comment\n\n./docs/../docs/drop.md\n/*.log\n**/node_modules", {"sub/a.log", "docs/keep.md"}),
    ],
)
def test_dockerignore_is_read_as_docker_reads_it(tmp_path: Path, patterns: str, sent: set[str]) -> None:
    tree(
        tmp_path,
        "Dockerfile",
        "a.log",
        "sub/a.log",
        "node_modules/x",
        "sub/node_modules/x",
        "docs/keep.md",
        "docs/drop.md",
    )
    (tmp_path / ".dockerignore").write_text(patterns)

    assert files(Context(tmp_path, "Dockerfile")) - {"Dockerfile", ".dockerignore"} == sent


def test_the_dockerfile_is_sent_even_when_it_is_ignored(tmp_path: Path) -> None:
    tree(tmp_path, "build/Dockerfile", "build/other")
    (tmp_path / ".dockerignore").write_text("build\n")

    context = Context(tmp_path, "build/Dockerfile")

    assert context.dockerfile == "build/Dockerfile"
    assert files(context) == {"build/Dockerfile", ".dockerignore"}


def test_a_dockerfile_from_outside_or_inline_travels_inside(tmp_path: Path) -> None:
    tree(tmp_path, "Outer", "context/a")

    outer = Context(tmp_path / "context", "../Outer")
    inline = Context(tmp_path / "context", "Dockerfile", "FROM scratch\n")

    assert outer.dockerfile == inline.dockerfile == INLINE_NAME
    assert files(outer) == files(inline) == {"a", INLINE_NAME}


def test_sockets_and_pipes_are_left_out_and_owners_too(tmp_path: Path) -> None:
    tree(tmp_path, "Dockerfile")
    os.mkfifo(tmp_path / "pipe")

    with tarfile.open(fileobj=io.BytesIO(b"".join(Context(tmp_path, "Dockerfile").stream()))) as tar:
        members = list(tar)

    assert [member.name for member in members] == ["Dockerfile"]
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}


def test_a_context_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not a directory"):
        Context(tmp_path / "nothing", "Dockerfile")
    with pytest.raises(Failure, match="no Dockerfile"):
        Context(tmp_path, "Dockerfile")

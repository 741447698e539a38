"""Reading conmon's format, without conmon."""

from pathlib import Path

import pytest

from skep.model.errors import InvalidInput
from skep.providers.local.logs import ContainerLog, parse_time


def write(path: Path, first: int, last: int) -> None:
    lines = [
        f"2026-11-23T10:00:{n % 60:02}.000000{n:03}+00:00 stdout F line {n}\n" for n in range(first, last)
    ]
    path.write_text("".join(lines))


async def texts(log: ContainerLog, tail: int | None = None, since: str | None = None) -> list[str]:
    return [line.text async for line in log.lines(tail=tail, since=since)]


@pytest.mark.parametrize("tail", [0, 1, 9, 10, 11, 25, 29, 30, 31, None])
async def test_a_tail_reaches_back_over_rotated_files(tmp_path: Path, tail: int | None) -> None:
    for name, first in (("log.2", 0), ("log.1", 10), ("log", 20)):
        write(tmp_path / name, first, first + 10)

    seen = await texts(ContainerLog(tmp_path / "log"), tail)

    assert seen == [f"line {n}" for n in range(0 if tail is None else max(0, 30 - tail), 30)]


async def test_a_tail_of_a_large_file(tmp_path: Path) -> None:
    write(tmp_path / "log", 0, 40_000)

    assert await texts(ContainerLog(tmp_path / "log"), 15_000) == [f"line {n}" for n in range(25_000, 40_000)]


async def test_parts_of_a_line_are_joined_per_stream(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "2026-11-23T10:00:00.1+00:00 stdout P one \n"
        "2026-11-23T10:00:00.2+00:00 stderr F error\n"
        "2026-11-23T10:00:00.3+00:00 stdout P two \n"
        "garbage\n"
        "2026-11-23T10:00:00.4+00:00 stdout F three\n"
        "2026-11-23T10:00:00.5+00:00 stdout P unfinished"
    )

    log = ContainerLog(tmp_path / "log")

    assert await texts(log) == ["error", "one two three"]
    assert log.last(5) == ["error", "one two three", "unfinished"]


async def test_since_cuts_off_what_is_older(tmp_path: Path) -> None:
    write(tmp_path / "log", 0, 30)

    assert (await texts(ContainerLog(tmp_path / "log"), since="2026-11-23T10:00:28Z"))[0] == "line 28"
    with pytest.raises(InvalidInput):
        await texts(ContainerLog(tmp_path / "log"), since="yesterday")


def test_times_have_nanoseconds() -> None:
    assert parse_time("1970-01-01T00:00:01.000000002Z") == 1_000_000_002
    assert parse_time("1970-01-01T01:00:01+01:00") == 1_000_000_000
    assert parse_time("1.5") == 1_500_000_000


async def test_no_log_is_no_lines(tmp_path: Path) -> None:
    assert await texts(ContainerLog(tmp_path / "log"), 10) == []

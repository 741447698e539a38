"""Durations and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.compose import format_duration, format_size, parse_duration, parse_size
from skep.compose.units import LARGEST, scalar_text
from skep.model.ids import Bytes, Seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90),
        ("10s", 10),
        ("1h5m30s20ms", 3930.02),
        ("1.5s", 1.5),
        ("0", 0),
        ("500us", 0.0005),
        ("2d", 172800),
    ],
)
def test_durations_are_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1m 30s", "-1s", "1x", "1e3s", "9" * 100 + "s"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64m", 64 << 20),
        ("1.5gb", 3 << 29),
        ("2 GiB", 2 << 30),
        ("300kb", 300 << 10),
        ("1024", 1024),
        ("5b", 5),
    ],
)
def test_sizes_are_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1e9", "1 2m", "64mm", "9" * 50, "100000p"])
def test_other_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"no size|too large"):
        parse_size(text)


@given(st.integers(0, 30 * 86_400 * 1_000_000))
def test_a_printed_duration_reads_the_same(microseconds: int) -> None:
    seconds = Seconds(microseconds / 1_000_000)

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.integers(0, LARGEST))
def test_a_printed_size_reads_the_same(size: int) -> None:
    assert parse_size(format_size(Bytes(size))) == size


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert str(error)  # noqa: PT017 - the words are what a user sees


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (17, "17"), (1.5, "1.5"), (100000.5, "100000.5"), (float("inf"), "+Inf")],
)
def test_scalars_become_the_text_compose_passes_on(value: float | None, text: str) -> None:
    assert scalar_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_reads_the_same(value: float) -> None:
    assert float(scalar_text(value)) == value

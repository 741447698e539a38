"""Ids that sort by age, and names that are DNS labels."""

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.model.errors import InvalidInput, SkepError
from skep.model.ids import LENGTH, new_id, short
from skep.model.names import check_name


def test_an_id_is_twenty_characters_without_look_alikes() -> None:
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{20}", new_id()) for _ in range(100))
    assert len(new_id()) == LENGTH


def test_ids_sort_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for moment in (0, 1_000_000, 999_999_000_000, time.time_ns(), 2**62):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        made.append(new_id())

    assert made == sorted(made)


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)

    assert len({new_id() for _ in range(2000)}) == 2000
    assert len({short(new_id()) for _ in range(2000)}) == 2000


def test_the_short_form_leaves_room_for_a_prefix_in_the_name_of_an_interface() -> None:
    assert len(short(new_id())) == 10


@pytest.mark.parametrize("name", ["a", "web", "my-app_2", "0", "1e3", "a" * 63])
def test_a_label_is_a_name(name: str) -> None:
    assert check_name(name, "app") == name


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "-a", "a-", "_a", "a_", "A", "a.b", "a b", "a/b", "..", "ä", "a\n", "a\0"]
)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^app .* is not a valid name"):
        check_name(name, "app")


@given(st.text(max_size=200))
def test_no_text_breaks_the_check(text: str) -> None:
    with suppress(InvalidInput):
        assert re.fullmatch(r"[a-z0-9_-]{1,63}", check_name(text, "app"))


def every_error(kind: type[SkepError] = SkepError) -> list[type[SkepError]]:
    return [kind, *(sub for one in kind.__subclasses__() for sub in every_error(one))]


def test_every_kind_of_error_has_a_code_of_its_own_and_a_message() -> None:
    kinds = [kind for kind in every_error() if kind.__module__ == SkepError.__module__]

    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind().message.endswith((".", "?")) or ":" in kind().message for kind in kinds)


def test_errors_carry_details_beside_their_message() -> None:
    error = InvalidInput("no", line=3)

    assert (error.message, str(error), error.details) == ("no", "no", {"line": 3})

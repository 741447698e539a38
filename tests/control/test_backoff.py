"""Waiting longer after each attempt, by a clock that the test moves."""

from hypothesis import given
from hypothesis import strategies as st

from skep.control.reconcilers.backoff import FIRST, LONGEST, Backoff


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def waits(backoff: Backoff, clock: Clock, key: str, times: int) -> list[float]:
    """How long each attempt after the first had to wait, in steps of half a second."""
    found = []
    for _ in range(times):
        backoff.attempted(key)
        begun = clock.time
        while not backoff.ready(key):
            clock.time += 0.5
        found.append(clock.time - begun)
    return found


def test_what_was_never_tried_may_be_tried_at_once() -> None:
    assert Backoff(Clock()).ready("a")


def test_each_wait_is_twice_as_long_as_the_one_before_up_to_two_minutes() -> None:
    clock = Clock()

    found = waits(Backoff(clock), clock, "a", 9)

    assert found == [FIRST, 2, 4, 8, 16, 32, 64, LONGEST, LONGEST]


def test_keys_wait_apart() -> None:
    clock = Clock()
    backoff = Backoff(clock)

    backoff.attempted("a")

    assert (backoff.ready("a"), backoff.ready("b")) == (False, True)


def test_what_is_well_again_begins_anew() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    waits(backoff, clock, "a", 5)

    backoff.keep_only(set())

    assert waits(backoff, clock, "a", 1) == [FIRST]


@given(st.integers(0, 3000))
def test_no_number_of_attempts_waits_longer_than_the_longest(attempts: int) -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(attempts):
        backoff.attempted("a")

    clock.time += LONGEST

    assert backoff.ready("a")

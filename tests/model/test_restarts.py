"""Restart policies as pure decisions."""

from hypothesis import given
from hypothesis import strategies as st

from skep.model.ids import Seconds
from skep.model.restarts import History, Restart, decide
from skep.model.spec import RestartPolicy

CRASH = Seconds(0.5)


def test_delays_double_up_to_a_minute() -> None:
    delays, history = [], History()
    for _ in range(12):
        again = decide(RestartPolicy(), 1, CRASH, history)
        assert again
        delays.append(round(again.after, 3))
        history = again.history

    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]


def test_a_run_as_long_as_the_window_starts_afresh() -> None:
    worn = History(attempts=9, delay=25.6)

    again = decide(RestartPolicy(window=10), 1, Seconds(10), worn)

    assert again == Restart(Seconds(0.1), History(attempts=1, delay=0.1))


def test_conditions() -> None:
    assert decide(RestartPolicy(condition="no"), 1, CRASH, History()) is None
    assert decide(RestartPolicy(condition="on-failure"), 0, CRASH, History()) is None
    assert decide(RestartPolicy(condition="on-failure"), 1, CRASH, History())
    assert decide(RestartPolicy(condition="always"), 0, CRASH, History())


def test_attempts_are_counted() -> None:
    policy = RestartPolicy(max_attempts=3)

    assert decide(policy, 1, CRASH, History(attempts=2, delay=0.2))
    assert decide(policy, 1, CRASH, History(attempts=3, delay=0.4)) is None


@given(delay=st.floats(0, 86_400), attempts=st.integers(0, 100), last=st.floats(0, 86_400))
def test_no_policy_makes_a_busy_loop(delay: float, attempts: int, last: float) -> None:
    again = decide(RestartPolicy(delay=delay), 1, CRASH, History(attempts=attempts, delay=last))

    assert again
    assert again.after > 0 or attempts

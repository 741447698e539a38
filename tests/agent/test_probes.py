"""Health as pure decisions, with the Docker engine's semantics."""

from skep.agent.probes import ProbeResult, ProbeState, command, judge, wait_before_next
from skep.model.host import Health
from skep.model.ids import Seconds
from skep.model.spec import HealthCheck

CHECK = HealthCheck(test=("CMD", "true"), interval=30, retries=3, start_period=60, start_interval=2)


def result(code: int | None, began: float = 100.0) -> ProbeResult:
    return ProbeResult(code=code, output="words", began=Seconds(began))


def test_it_takes_all_retries_to_be_unhealthy_and_one_success_to_recover() -> None:
    state = ProbeState()
    seen = []
    for code in (1, 1, 1, 0, 1):
        state = judge(CHECK, state, result(code))
        seen.append(state.health.value)

    assert seen == ["starting", "starting", "unhealthy", "healthy", "healthy"]


def test_failures_within_the_start_period_do_not_count() -> None:
    state = ProbeState()
    for _ in range(10):
        state = judge(CHECK, state, result(1, began=59.0))

    assert (state.health, state.failures, state.output) == (Health.STARTING, 0, "words")


def test_once_healthy_the_start_period_is_over() -> None:
    state = judge(CHECK, ProbeState(), result(0, began=2.0))
    for _ in range(3):
        state = judge(CHECK, state, result(1, began=10.0))

    assert state.health is Health.UNHEALTHY


def test_a_timeout_is_a_failure_that_says_so() -> None:
    state = judge(CHECK, ProbeState(), result(None))

    assert state.failures == 1
    assert "timeout of 30 s" in state.output


def test_probes_are_closer_together_while_starting() -> None:
    assert wait_before_next(CHECK, ProbeState(), Seconds(10)) == Seconds(2)
    assert wait_before_next(CHECK, ProbeState(), Seconds(61)) == Seconds(30)
    assert wait_before_next(CHECK, ProbeState(health=Health.HEALTHY), Seconds(10)) == Seconds(30)


def test_forms_of_a_check() -> None:
    assert command(HealthCheck(test=("CMD-SHELL", "a | b"))) == ("/bin/sh", "-c", "a | b")
    assert command(HealthCheck(test=("CMD", "a", "b"))) == ("a", "b")
    assert command(HealthCheck(test=("NONE",))) is None
    assert command(None) is None

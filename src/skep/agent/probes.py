"""Health as a state machine.  Pure: the agent runs the commands and keeps the time.

The semantics are the Docker engine's (moby, daemon/health.go): the first probe comes one interval after the
start; failures within the start period do not count until the container was healthy once.
"""

import msgspec

from skep.model.host import Health
from skep.model.ids import Seconds
from skep.model.spec import HealthCheck

_OUTPUT = 4096


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One probe: its exit code (None: it took longer than the timeout) and what it printed."""

    code: int | None
    output: str
    began: Seconds
    """Since the start of the container."""


class ProbeState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known so far."""

    health: Health = Health.STARTING
    failures: int = 0
    output: str = ""


def command(check: HealthCheck | None) -> tuple[str, ...] | None:
    """The program to run; None when health is not checked."""
    return check.program if check else None


def wait_before_next(check: HealthCheck, state: ProbeState, running_for: Seconds) -> Seconds:
    """Seconds from the end of one probe (or the start) to the next one."""
    starting = running_for < check.start_period and state.health is Health.STARTING
    return Seconds(max(0.1, check.start_interval if starting else check.interval))


def judge(check: HealthCheck, state: ProbeState, result: ProbeResult) -> ProbeState:
    """The state after a probe."""
    output = _words(check, result)
    if result.code == 0:
        return ProbeState(health=Health.HEALTHY, output=output)
    if state.health is Health.STARTING and result.began < check.start_period:
        return ProbeState(health=Health.STARTING, failures=state.failures, output=output)
    failures = state.failures + 1
    health = Health.UNHEALTHY if failures >= check.retries else state.health
    return ProbeState(health=health, failures=failures, output=output)


def _words(check: HealthCheck, result: ProbeResult) -> str:
    if result.code is None:
        return f"Health check exceeded its timeout of {check.timeout:g} s. {result.output}"[:_OUTPUT].rstrip()
    return result.output[:_OUTPUT]

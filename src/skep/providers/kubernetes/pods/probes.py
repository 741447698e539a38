"""Health checks of Compose as probes of kubelet, and what its answers mean.  Pure.

Compose's engine never ends what is unwell: so there is neither a liveness nor a startup probe, both of which
end containers, but only one of readiness.
"""

import math
from typing import Any

from skep.model.ids import Seconds
from skep.model.spec import HealthCheck

_REPORTED = 8.0
"""Seconds until what kubelet found is known."""


def of_check(check: HealthCheck | None) -> dict[str, Any]:
    """`readinessProbe` of a container.

    Kubelet counts whole seconds and knows one interval only: with a `start_period` that is the shorter one,
    and it takes as many more failures to be unwell.
    """
    if check is None or check.program is None:
        return {}
    period = _period(check)
    probe = {
        "exec": {"command": list(check.program)},
        "timeoutSeconds": _whole(check.timeout),
        "periodSeconds": period,
        "failureThreshold": max(check.retries, round(check.retries * check.interval / period)),
    }
    return {"readinessProbe": probe}


def given_up_after(check: HealthCheck | None) -> Seconds | None:
    """Seconds from its start until what was never well counts as unwell; None: nothing is checked."""
    if check is None or check.program is None:
        return None
    tries = check.retries * _whole(check.interval)
    return Seconds(check.start_period + tries + _period(check) + _REPORTED)


def _period(check: HealthCheck) -> int:
    return _whole(min(check.start_interval, check.interval) if check.start_period else check.interval)


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))

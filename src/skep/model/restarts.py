"""Whether and when an exited container starts again.  Pure.

As the Docker engine: the delay doubles up to a minute, and a container that ran long enough starts afresh.
Compose: https://github.com/compose-spec/compose-spec/blob/main/05-services.md#restart
"""

import msgspec

from skep.model.ids import Seconds
from skep.model.spec import RestartPolicy

_LONGEST = 60.0
_SHORTEST = 0.1
"""A policy with `delay: 0` must not turn a crash loop into a busy loop."""
HOPELESS = 10
"""Attempts in a row that did not last, after which nobody waits any longer for a container to become ready:
with a delay that begins at the shortest, about two minutes."""


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Attempts in a row that did not last, and the delay before the latest."""

    attempts: int = 0
    delay: float = 0.0


class Restart(msgspec.Struct, frozen=True):
    """Start it again after the delay; `history` is what to remember then."""

    after: Seconds
    history: History


def decide(policy: RestartPolicy, code: int, ran_for: Seconds, history: History) -> Restart | None:
    """What follows an exit that nobody asked for; None leaves the container exited.

    A run of at least `policy.window` seconds wipes the history: it had come up.
    """
    if ran_for >= policy.window:
        history = History()
    if not _applies(policy, code) or _exhausted(policy, history):
        return None
    delay = max(_SHORTEST, policy.delay) if history.attempts == 0 else min(_LONGEST, history.delay * 2)
    return Restart(Seconds(delay), History(attempts=history.attempts + 1, delay=delay))


def _applies(policy: RestartPolicy, code: int) -> bool:
    return policy.condition in ("always", "unless-stopped") or (
        policy.condition == "on-failure" and code != 0
    )


def _exhausted(policy: RestartPolicy, history: History) -> bool:
    return policy.max_attempts is not None and history.attempts >= policy.max_attempts

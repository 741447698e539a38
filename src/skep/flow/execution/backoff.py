"""How long to wait before a step is tried again."""

import random

from skep.flow.definition.plan import RetryPolicy


def full_jitter(policy: RetryPolicy, tries: int) -> float:
    """Seconds: anything up to `policy.first` doubled with each try, `policy.most` at most.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0.0, min(policy.most, policy.first * 2.0 ** min(tries - 1, 30)))  # noqa: S311

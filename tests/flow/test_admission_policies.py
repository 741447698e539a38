"""Policies by key: hierarchy, patterns, which goes before which, and what operators may not set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.flow.admission_world import Rate, ticket

from skep.flow.admission.policies import Policies, Policy
from skep.flow.admission.rates import Bucket
from skep.flow.admission.tickets import Use


def test_a_pattern_is_a_policy_for_each_child_and_for_nothing_below_or_above() -> None:
    policies = Policies({"tenant/*": Policy(concurrency=2)})

    assert policies.of("tenant/acme").concurrency == 2
    assert policies.of("tenant").concurrency is None
    assert policies.of("tenant/acme/builds").concurrency is None
    assert policies.limited("tenant/acme/builds") == ("tenant/acme",)


def test_the_most_exact_policy_that_gives_a_field_goes_before_the_others() -> None:
    policies = Policies(
        {
            "*/*/builds": Policy(concurrency=1, weight=5.0),
            "tenant/*/builds": Policy(concurrency=2, rate=9.0, burst=3.0),
            "tenant/acme/builds": Policy(rate=1.0),
        }
    )

    found = policies.of("tenant/acme/builds")

    assert found == Policy(concurrency=2, rate=1.0, burst=None, weight=5.0)


def test_a_policy_goes_before_what_the_document_says() -> None:
    policies = Policies({"k": Policy(concurrency=7)})
    asked = ticket(limits=(Use("k", 2, 5.0), Use("other", 1)))

    assert policies.limits_of(asked) == (Use("k", 7, 5.0), Use("other", 1))


def test_a_ticket_counts_on_its_tenant_flow_step_and_host() -> None:
    keys = ("tenant/acme", "flow/release", "step/build", "host/h1")
    policies = Policies(dict.fromkeys(keys, Policy(concurrency=1)))

    assert tuple(use.key for use in policies.limits_of(ticket(route="h1"))) == keys
    assert [use.key for use in policies.limits_of(ticket(tenant=""))] == ["flow/release", "step/build"]


def test_what_is_set_holds_until_it_is_removed() -> None:
    policies = Policies()
    before = policies.version

    policies.set("tenant/acme", Policy(weight=3.0))
    assert (policies.weight("acme"), policies.weight("other"), policies.limiting) == (3.0, 1.0, False)
    assert policies.all() == {"tenant/acme": Policy(weight=3.0)}
    policies.set("tenant/acme", None)

    assert policies.weight("acme") == 1.0
    assert policies.version == before + 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("concurrency", -1), ("rate", 0.0), ("rate", float("nan")), ("burst", 0.5), ("weight", -2.0)],
)
def test_a_number_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Policy(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "/", "a//b", "a/", "x" * 513])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        Policies().set(key, Policy(concurrency=1))


@given(st.floats(0.01, 1000), st.floats(1, 50), st.lists(st.floats(0, 5), max_size=60))
def test_a_bucket_gives_what_the_plainest_count_of_tokens_gives(
    rate: float, burst: float, pauses: list[float]
) -> None:
    bucket, plain, now = Bucket(rate, burst), Rate(rate, burst, 0.0), 0.0

    for pause in pauses:
        now += pause
        plain.pass_time(now)
        if bucket.tokens(now):
            assert plain.tokens >= 1 - 1e-6
            bucket.take(now)
            plain.tokens -= 1
        else:
            assert plain.tokens < 1 + 1e-6
            assert bucket.due() > now
            assert bucket.tokens(bucket.due()) == 1


@given(st.floats(0.1, 100), st.floats(0.1, 100), st.integers(0, 20))
def test_another_rate_gives_back_nothing_that_was_used(before: float, after: float, used: int) -> None:
    bucket = Bucket(before, 20)
    for _ in range(used):
        bucket.take(0.0)

    bucket.change(after, 20, 0.0)

    assert abs(bucket.tokens(0.0) - (20 - used)) <= (0 if used in (0, 20) else 1)

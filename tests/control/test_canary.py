"""When a canary is worse than what it is to replace."""

from skep.control.canary import Counters, fault, since
from skep.model.ids import ReplicaId
from skep.model.spec import ReleasePolicy

POLICY = ReleasePolicy(max_error_rate=0.01, max_latency=1.5)
OLD, NEW = ReplicaId("old"), ReplicaId("new")


def counted(requests: int, errors: int = 0, latency: float = 0.01) -> Counters:
    return Counters(requests=requests, errors=errors, seconds=latency * requests)


def test_as_good_as_before_is_good_enough() -> None:
    assert fault(counted(100, errors=2), counted(1000, errors=20), POLICY) == ""


def test_more_errors_than_allowed_are_named_with_both_rates() -> None:
    assert "3 of 100 requests failed (3.0%), of the old revision 1.0%" in fault(
        counted(100, errors=3), counted(1000, errors=10), POLICY
    )


def test_slower_answers_are_named_with_both_times() -> None:
    assert "took 16 ms, of the old revision 10 ms" in fault(counted(100, latency=0.016), counted(100), POLICY)


def test_a_few_requests_prove_nothing() -> None:
    assert fault(counted(3, errors=3), counted(1000), POLICY) == ""


def test_errors_count_also_where_the_old_revision_got_no_requests() -> None:
    assert fault(counted(50, errors=50), Counters(), POLICY)


def test_only_what_was_answered_in_between_counts() -> None:
    before = {NEW: counted(1000, errors=900)}
    after = {NEW: counted(1100, errors=900), OLD: counted(50)}

    assert since(before, after, [NEW]) == Counters(requests=100, errors=0, seconds=1.0)


def test_a_count_that_began_anew_counts_from_zero() -> None:
    assert since({NEW: counted(1000)}, {NEW: counted(30, errors=1)}, [NEW]).errors == 1

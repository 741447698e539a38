"""When a canary is worse than what it is to replace."""

from skep.control.canary import Counters, Sides, fault, sides, since
from skep.model.edge import EndpointTraffic
from skep.model.ids import EndpointId
from skep.model.spec import ReleasePolicy

POLICY = ReleasePolicy(max_error_rate=0.01, max_latency=1.5)


def counted(requests: int, errors: int = 0, latency: float = 10) -> Counters:
    return Counters(requests=requests, errors=errors, latency=latency)


def test_as_good_as_before_is_good_enough() -> None:
    assert fault(counted(100, errors=2), counted(1000, errors=20), POLICY) == ""


def test_more_errors_than_allowed_are_named_with_both_rates() -> None:
    assert "3 of 100 requests failed (3.0%), of the old revision 1.0%" in fault(
        counted(100, errors=3), counted(1000, errors=10), POLICY
    )


def test_slower_answers_are_named_with_both_times() -> None:
    assert "took 16 ms, of the old revision 10 ms" in fault(counted(100, latency=16), counted(100), POLICY)


def test_a_few_milliseconds_prove_nothing() -> None:
    assert fault(counted(100, latency=6), counted(100, latency=2), POLICY) == ""


def test_a_few_requests_prove_nothing() -> None:
    assert fault(counted(3, errors=3), counted(1000), POLICY) == ""


def test_errors_count_also_where_the_old_revision_got_no_requests() -> None:
    assert fault(counted(50, errors=50), Counters(), POLICY)


def test_only_what_was_answered_in_between_counts() -> None:
    assert since(counted(1000, errors=900), counted(1100, errors=900)) == counted(100)


def test_a_count_that_began_anew_counts_from_zero() -> None:
    assert since(counted(1000), counted(30, errors=1)) == counted(30, errors=1)


def test_endpoints_and_hosts_are_counted_together_by_revision() -> None:
    def of(revision: int, requests: int, errors: int, latency: float) -> EndpointTraffic:
        return EndpointTraffic(
            endpoint=EndpointId("e"),
            revision=revision,
            requests=requests,
            server_errors=errors,
            response_time=latency,
        )

    found = sides([of(2, 10, 1, 20), of(2, 30, 0, 10), of(1, 5, 5, 1), of(0, 5, 0, 3)], 2)

    assert found == Sides(new=counted(40, 1, 12.5), old=counted(10, 5, 2))

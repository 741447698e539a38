"""What HAProxy counted, by endpoint and revision."""

from skep.providers.local.edge.traffic import Tally

HEAD = (
    "# pxname,svname,scur,qcur,qtime,rtime,econ,eresp,wretr,wredis,"
    "hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other"
)


def stat(**answered: int) -> str:
    """Of `show stat`; servers of replicas by the last letter of their names."""
    rows = [f"b1,1-shop-web-0-{name},1,0,0,10,0,0,0,0,0,{count},0,0,0,0" for name, count in answered.items()]
    return "\n".join([HEAD, "b1,BACKEND,0,0,0,0,0,0,0,0,0,9,0,0,0,0", *rows])


def test_what_a_server_counted_stays_counted_when_it_is_taken_out() -> None:
    tally = Tally()
    tally.count(stat(a=100, b=50))

    [after] = tally.count(stat(a=110))

    assert (after.endpoint, after.revision, after.requests, after.sessions) == ("shop", 1, 160, 1)


def test_what_was_counted_before_haproxy_died_stays_counted() -> None:
    tally = Tally()
    tally.count(stat(a=100))
    tally.count(stat(a=3))

    [after] = tally.count(stat(a=5))

    assert after.requests == 105


def test_of_what_has_no_servers_any_more_nothing_is_kept() -> None:
    tally = Tally()
    tally.count(stat(a=100))

    assert tally.count(stat()) == []
    assert [one.requests for one in tally.count(stat(a=1))] == [1]

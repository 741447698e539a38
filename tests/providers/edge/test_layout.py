"""Which backend answers for which endpoint, and what must be said to get there."""

import msgspec
import pytest
from tests.providers.edge.conftest import TENANT, endpoint

from skep.model.edge import EdgeEndpoint
from skep.providers.local.edge import changes
from skep.providers.local.edge.access_log import parse
from skep.providers.local.edge.layout import (
    Layout,
    NoSlot,
    Route,
    Server,
    Wanted,
    arrange,
    fresh,
    key,
    left_behind,
    parse_name,
)

SHOP, API = endpoint("shop.localhost"), endpoint("shop.localhost", path="/api")


def server(name: str, weight: int = 100) -> Server:
    return Server(name, "100.66.0.2", 20_000, weight)


def wanted(one: EdgeEndpoint, *names: str, weight: int = 100) -> Wanted:
    return Wanted(one, tuple(server(name, weight) for name in names), TENANT)


def told(have: Layout, then: Layout) -> tuple[list[str], list[str]]:
    found = changes.before(have, then), changes.after(have, then)
    before, after = ([" ".join(one.text.split(" ")[:4]) for one in commands] for commands in found)
    return before, after


def test_an_endpoint_that_others_answer_from_now_on_gets_a_fresh_slot() -> None:
    have = fresh([wanted(SHOP, "old"), wanted(API, "api")])

    then = arrange(have, [wanted(SHOP, "new"), wanted(API, "api")])

    slot = then.routes["shop.localhost/"].slot
    assert slot not in {route.slot for route in have.routes.values()}
    assert then.routes["shop.localhost/api/"] == have.routes["shop.localhost/api/"]
    assert left_behind(then) == [have.routes["shop.localhost/"].slot]
    assert told(have, then) == (
        [f"add server {slot}/new 100.66.0.2:20000", f"enable server {slot}/new", f"enable health {slot}/new"],
        [],
    )


def test_who_goes_on_keeps_the_slot_and_who_leaves_rests_after_the_others_have_come() -> None:
    have = fresh([wanted(SHOP, "one", "two")])

    then = arrange(have, [wanted(SHOP, "two", "three")])

    before, after = told(have, then)
    slot = have.routes["shop.localhost/"].slot
    assert then.routes == have.routes
    assert before[0] == f"add server {slot}/three 100.66.0.2:20000"
    assert after == [f"set server {slot}/one state"]


def test_what_stays_is_not_spoken_of() -> None:
    have = fresh([wanted(SHOP, "one")])

    then = arrange(have, [wanted(SHOP, "one")])

    assert told(have, then) == ([], [])
    assert then == have


def test_another_weight_is_one_command() -> None:
    have = fresh([wanted(SHOP, "one", "two")])

    then = arrange(have, [Wanted(SHOP, (server("one"), server("two", 5)), TENANT)])

    slot = have.routes["shop.localhost/"].slot
    assert told(have, then) == ([f"set server {slot}/two weight"], [])


def test_too_few_slots_are_said_and_a_fresh_layout_has_twice_what_it_needs() -> None:
    many = [wanted(endpoint(f"n{number}.localhost"), "one") for number in range(60)]
    have = fresh(many)

    others = [wanted(one.endpoint, "other") for one in many]
    with pytest.raises(NoSlot):
        arrange(arrange(have, others), many)
    assert len(have.slots) == 128


def test_a_route_is_read_as_it_was_written() -> None:
    one = msgspec.structs.replace(SHOP, sticky=True, rate=5, max_connections=9, timeout=1.5)
    route = wanted(one).route("b7")

    assert route == Route("b7", SHOP.id, "sro", 5, 1500, 9)
    asleep = wanted(msgspec.structs.replace(one, hold=True)).route("b7")
    assert (asleep.flags, asleep.holder) == ("hsro", TENANT)
    assert [Route.parse(each.text) for each in (route, asleep)] == [route, asleep]
    assert Route.parse(route.text.removesuffix("|")) == route
    assert (key("a.b", "/"), key("a.b", "/c/d")) == ("a.b/", "a.b/c/d/")


def test_a_line_of_the_log_says_who_answered_and_a_strange_one_nothing() -> None:
    server = f"7-{SHOP.id}-web-0-0123abcd"
    found = parse(f"1700000000.25 b1|{SHOP.id}|||| 192.0.2.2 {server} 200 12 343 -- GET HTTP/2.0 - /a/b")

    assert found is not None
    assert (found.time, found.replica, found.revision, found.path, found.host) == (
        1_700_000_000.25,
        "web-0",
        7,
        "/a/b",
        "",
    )
    assert parse("something else") is None
    assert parse_name("static") is None

"""Admission as a whole: no limit is ever exceeded, nobody who could go is kept, and everybody is served."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.admission_world import World, ticket

from skep.flow.admission.admission import Admission
from skep.flow.admission.policies import Policies, Policy
from skep.flow.admission.tickets import Ticket, Use

USES = (
    Use("k", 2),
    Use("k/a", 1),
    Use("k/b", 3),
    Use("mail", rate=2.0),
    Use("tenant/acme/builds", 2),
    Use("host/h1", 1),
    Use("m", 0 + 4, 1.0),
)
POLICIES = (
    ("tenant/*", Policy(concurrency=2)),
    ("tenant/acme", Policy(concurrency=1, weight=2.0)),
    ("tenant/acme", Policy(concurrency=4)),
    ("tenant", Policy(concurrency=3)),
    ("k", Policy(concurrency=1)),
    ("k", Policy(concurrency=5)),
    ("k/*", Policy(concurrency=2)),
    ("step/build", Policy(rate=3.0, burst=2)),
    ("step/build", Policy(rate=0.5)),
    ("host/*", Policy(concurrency=1)),
    ("mail", Policy(rate=5.0)),
    ("m", Policy(concurrency=0)),
)

tickets = st.builds(
    ticket,
    st.integers(0, 99),
    tenant=st.sampled_from(["", "acme", "umbrella"]),
    priority=st.integers(0, 4),
    limits=st.lists(st.sampled_from(USES), max_size=2, unique=True).map(tuple),
    code=st.sampled_from(["build", "test"]),
    route=st.sampled_from(["", "", "h1", "h2"]),
)
happenings = st.one_of(
    tickets,
    tickets,
    st.tuples(st.just("finish"), st.integers(0, 99), st.sampled_from([0.0, 0.1, 1.0, 9.0])),
    st.tuples(st.just("finish"), st.integers(0, 99), st.sampled_from([0.0, 0.1, 1.0, 9.0])),
    st.tuples(st.just("withdraw"), st.integers(0, 99)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 3.0])),
    st.tuples(st.just("set"), st.sampled_from(POLICIES)),
    st.tuples(st.just("unset"), st.sampled_from([key for key, _ in POLICIES])),
)


def happen(world: World, what: object) -> None:
    match what:
        case Ticket():
            world.submit(what)
        case ("finish", int(number), float(seconds)) if world.running:
            world.finish(world.running[number % len(world.running)], seconds)
        case ("withdraw", int(number)) if world.waiting:
            world.withdraw(world.waiting[number % len(world.waiting)])
        case ("wait", float(seconds)):
            world.wait(seconds)
        case ("set", (str(key), Policy() as policy)):
            world.put(key, policy)
        case ("unset", str(key)):
            world.put(key, None)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 16]), st.lists(happenings, max_size=60))
def test_limits_hold_nobody_is_forgotten_and_everybody_is_served(slots: int, what: list[object]) -> None:
    world = World(slots)

    for one in what:
        happen(world, one)
    world.put("m", None)
    world.finish_everything()

    assert world.admission.depths() == dict.fromkeys(range(5), 0)
    world.now += 1e6
    world.submit(probe := ticket(limits=(Use("other", 1),)))
    world.finish(probe)
    assert len(world.admission._meters) <= len({use.key for use in USES}) + len(POLICIES)


@settings(max_examples=40, deadline=None)
@given(st.lists(tickets, min_size=20, max_size=40), st.integers(0, 3))
def test_the_same_holds_under_a_heavy_load(crowd: list[Ticket], policy: int) -> None:
    world = World(16, dict([POLICIES[policy]]))

    for one in crowd:
        world.submit(one)
        world.admit()
    world.finish_everything()

    assert not world.waiting


def test_as_many_go_at_once_as_there_are_slots_and_not_one_more() -> None:
    world = World(64)

    went = [world.submit(ticket(number, priority=0)) for number in range(70)]

    assert went == [True] * 64 + [False] * 6
    assert world.admission.depths() == {0: 6, 1: 0, 2: 0, 3: 0, 4: 0}


def test_a_limit_that_is_raised_lets_more_go_at_once_and_one_that_is_lowered_fewer() -> None:
    world = World(10, {"k": Policy(concurrency=2)})
    for number in range(8):
        world.submit(ticket(number, limits=(Use("k/x"),)))

    assert len(world.running) == 2
    assert len(world.put("k", Policy(concurrency=5))) == 3
    assert world.put("k", Policy(concurrency=1)) == []
    for _ in range(4):
        assert world.finish(world.running[0]) == []
    assert len(world.finish(world.running[0])) == 1
    assert len(world.put("k", None)) == 2


def test_a_policy_counts_what_is_under_way_already() -> None:
    world = World(10)
    for number in range(3):
        world.submit(ticket(number))

    world.put("tenant/*", Policy(concurrency=3))

    assert not world.submit(ticket(4))
    assert world.submit(ticket(5, tenant="umbrella"))


def test_a_document_that_limits_a_host_counts_what_others_run_there() -> None:
    world = World(10)
    world.submit(ticket(1, route="h1"))

    assert not world.submit(ticket(2, limits=(Use("host/h1", 1),)))
    assert not world.submit(ticket(3, route="h1"))
    assert world.submit(ticket(4, route="h2"))


def test_a_blocked_step_does_not_stand_in_the_way_of_those_behind_it() -> None:
    world = World(2)
    world.submit(ticket(1, limits=(Use("k", 1),)))
    world.submit(ticket(2, limits=(Use("k", 1),)))

    assert world.submit(ticket(3))


def test_documents_that_differ_are_held_to_the_least_while_both_are_there() -> None:
    world = World(10)
    world.submit(ticket(1, limits=(Use("k", 3),)))
    world.submit(old := ticket(2, limits=(Use("k", 2),)))

    assert not world.submit(ticket(3, limits=(Use("k", 3),)))
    assert len(world.finish(old)) == 1
    assert world.submit(ticket(4, limits=(Use("k", 3),)))


def test_a_rate_lets_its_burst_pass_and_then_one_at_a_time() -> None:
    world = World(100)
    mail = (Use("mail", rate=2.0, burst=3.0),)

    went = [world.submit(ticket(number, limits=mail)) for number in range(6)]

    assert went == [True, True, True, False, False, False]
    assert world.admission.wake_at() == 1000.5
    assert world.wait(0.499) == []
    assert len(world.wait(0.001)) == 1
    assert len(world.wait(10)) == 2
    assert world.admission.wake_at() is None


def test_a_rate_is_remembered_when_nobody_asks_for_it_for_a_while() -> None:
    world = World(10)
    slow = (Use("slow", rate=0.1),)
    world.submit(first := ticket(1, limits=slow))
    world.finish(first)
    world.submit(bare := ticket(2, limits=(Use("slow/other", 1),)))
    world.finish(bare)

    assert not world.submit(ticket(3, limits=slow))
    assert world.admission.wake_at() == 1010.0


def test_keys_leave_nothing_behind() -> None:
    world = World(4)

    for number in range(1000):
        world.submit(
            one := ticket(
                number, tenant=f"t{number}", limits=(Use(f"app/{number}", 1), Use(f"m/{number}", rate=5))
            )
        )
        world.finish(one)
        world.wait(1.0)

    assert len(world.admission._meters) < 150


def test_a_hundred_thousand_that_wait_for_one_key_cost_a_decision_nothing() -> None:
    looked = 0

    class Counting(Admission):
        def _try(self, *about: object) -> bool:
            nonlocal looked
            looked += 1
            return super()._try(*about)  # type: ignore[arg-type]

    admission = Counting(4, monotonic=lambda: 0.0, policies=Policies())
    crowd = [ticket(number, limits=(Use("k", 1),)) for number in range(100_000)]
    admission.submit(crowd[0])
    for one in crowd[1:]:
        assert not admission.submit(one)

    for number in range(100):
        admission.finished(crowd[number], 1.0)
        assert admission.admit() == [crowd[number + 1]]

    assert looked <= 200


def test_what_is_not_known_is_passed_over() -> None:
    world = World(1)
    world.submit(one := ticket(1))

    world.admission.withdraw(one)
    world.admission.withdraw(ticket(2))
    world.admission.finished(ticket(3), 1.0)

    assert not world.submit(ticket(4))


def test_there_must_be_a_slot() -> None:
    with pytest.raises(ValueError, match="0 slots"):
        Admission(0, monotonic=lambda: 0.0, policies=Policies())


def test_newcomers_do_not_pass_those_of_their_tenant_that_wait_for_the_same_key() -> None:
    world = World(2)
    builds = (Use("builds", 2),)
    for number in range(2):
        world.submit(ticket(number, limits=builds))
    world.submit(waits := ticket(2, limits=builds))
    world.submit(ticket(3, limits=(Use("builds", 2), Use("host/h1", 1))))

    world.finish(world.running[0])

    assert waits in world.running
    assert not world.submit(ticket(4, limits=builds))


def test_a_stream_of_newcomers_with_fewer_limits_does_not_starve_who_waits_for_the_key() -> None:
    world = World(4)
    world.submit(ticket(0, limits=(Use("k", 1),)))
    world.submit(waits := ticket(1, tenant="umbrella", limits=(Use("k", 1), Use("other", 1))))

    for number in range(2, 10):
        world.submit(ticket(number, limits=(Use("k", 1),)))
        if waits in world.finish(world.running[0]):
            break

    assert number <= 3


def test_who_was_let_go_between_an_end_and_the_decision_about_it_takes_nobodys_place() -> None:
    world = World(1)
    world.submit(first := ticket(1))
    world.submit(waits := ticket(2))
    world.admission.finished(first, 1.0)

    assert not world.admission.submit(later := ticket(3))
    assert world.admission.wake_at() == world.now
    assert world.admission.admit() == [waits]
    world.admission.finished(waits, 1.0)
    assert world.admission.admit() == [later]

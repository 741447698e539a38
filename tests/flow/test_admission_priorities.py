"""Five lanes: urgent work never waits behind bulk, and bulk never starves; the bounds are the documented."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.admission_world import World, ticket

from skep.flow.admission.policies import Policy
from skep.flow.admission.priorities import PATIENCE, TURN_EVERY, ceiling
from skep.flow.admission.tickets import Ticket, Use

URGENT, HIGH, NORMAL, LOW, BULK = range(5)
SLOTS = [1, 2, 3, 4, 8, 16, 64]


def backlog(world: World, lanes: set[int], each: int = 40) -> None:
    for lane in sorted(lanes, reverse=True):
        for number in range(each):
            world.submit(ticket(number, priority=lane))


def go_on(world: World, rounds: int) -> list[Ticket]:
    """The one under way the longest ends, and another of its priority comes; answers who went."""
    went = []
    for number in range(rounds):
        one = world.running[0]
        world.waiting.append(again := ticket(10_000 + number, priority=one.priority))
        world.admission.submit(again)
        went += world.finish(one)
    return went


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 16])
@settings(max_examples=8, deadline=None)
@given(lanes=st.sets(st.integers(0, 4), min_size=2))
def test_every_lane_that_wants_is_served_again_and_again(slots: int, lanes: set[int]) -> None:
    world = World(slots)
    backlog(world, lanes, 2 * slots + 4)

    went = [one.priority for one in go_on(world, 120)]

    for lane in lanes:
        assert _longest_gap(went, lane) <= max(PATIENCE + 3, slots)


@pytest.mark.parametrize("slots", SLOTS)
def test_urgent_work_gets_most_and_bulk_its_part(slots: int) -> None:
    world = World(slots)
    backlog(world, {URGENT, BULK}, 2 * slots + 20)

    went = Counter(one.priority for one in go_on(world, 300)[100:])

    assert went[BULK] >= 200 // (PATIENCE + 1) - 1
    assert went[URGENT] >= 200 * 14 // 16


@pytest.mark.parametrize("slots", SLOTS[1:])
def test_long_bulk_steps_leave_a_slot_for_urgent_ones(slots: int) -> None:
    world = World(slots)
    backlog(world, {BULK, LOW})

    assert world.submit(ticket(priority=URGENT))


def test_long_normal_steps_do_so_where_there_are_many_slots() -> None:
    world = World(64)
    backlog(world, {NORMAL}, 100)

    assert [world.submit(ticket(number, priority=URGENT)) for number in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize("slots", SLOTS)
def test_an_urgent_step_gets_the_next_slot_among_any_number_of_others(slots: int) -> None:
    world = World(slots)
    backlog(world, {HIGH, NORMAL, LOW, BULK}, 100)
    waits = world.submit(urgent := ticket(priority=URGENT))

    if not waits:
        for _ in range(1 + 4):
            if urgent in world.finish(world.running[0]):
                break

    assert urgent in world.running


def test_without_others_any_lane_may_have_its_ceiling() -> None:
    had = {lane: sum(_alone(lane)) for lane in range(5)}

    assert had == {URGENT: 64, HIGH: 62, NORMAL: 60, LOW: 56, BULK: 48}
    assert [ceiling(lane, 1) for lane in range(5)] == [1] * 5
    assert [ceiling(lane, 2) for lane in range(5)] == [2, 2, 2, 1, 1]
    assert [ceiling(lane, 4) for lane in range(5)] == [4, 4, 4, 3, 3]


def test_a_lane_below_its_reserved_slots_gets_the_next_one() -> None:
    world = World(64)
    for number in range(100):
        world.submit(ticket(number, priority=URGENT))
    world.submit(bulk := ticket(priority=BULK))

    assert world.finish(world.running[0]) == [bulk]


def test_a_key_that_urgent_work_always_wants_is_bulks_turn_now_and_then() -> None:
    world = World(16, {"k": Policy(concurrency=1)})
    want = (Use("k"),)
    for number in range(4):
        world.submit(ticket(number, priority=URGENT, limits=want))
    world.submit(bulk := ticket(priority=BULK, limits=want))

    for rounds in range(100):
        world.submit(ticket(100 + rounds, priority=URGENT, limits=want))
        if bulk in world.finish(world.running[0]):
            break

    assert rounds <= PATIENCE + TURN_EVERY


def _alone(lane: int) -> list[bool]:
    world = World(64)
    return [world.submit(ticket(number, priority=lane)) for number in range(100)]


def _longest_gap(went: list[int], lane: int) -> int:
    """The longest row of grants to others; that at the end does not count, for it may not be over."""
    longest = gap = 0
    for one in went:
        gap = 0 if one == lane else gap + 1
        longest = max(longest, gap)
    return longest

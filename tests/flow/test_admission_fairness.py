"""Tenants share time by measured cost and by weight, and nobody saves up what he did not use."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flow.admission_world import World, ticket

from skep.flow.admission.entries import Entry
from skep.flow.admission.fairness import FairLine
from skep.flow.admission.policies import Policies, Policy
from skep.flow.admission.tickets import Use

costs = st.floats(0.01, 100)


def share(world: World, of: dict[str, float], rounds: int, *, limit: str = "") -> list[Counter[str]]:
    """Each tenant always has a few that wait and take so many seconds; answers what each had, by round."""
    had, history = Counter[str](), []
    limits = (Use(limit),) if limit else ()
    number = 0
    for tenant in of:
        for _ in range(3 * world.slots):
            number += 1
            world.submit(ticket(number, tenant=tenant, code=f"of {tenant}", limits=limits))
    for later in range(number + 1, number + 1 + rounds):
        one = world.running[0]
        had[one.tenant] += of[one.tenant]  # type: ignore[assignment]
        world.waiting.append(again := ticket(later, tenant=one.tenant, code=one.code, limits=limits))
        assert not world.admission.submit(again)
        world.running.remove(one)
        world.admission.finished(one, of[one.tenant])
        for admitted in world.admission.admit():
            world.waiting.remove(admitted)
            world.running.append(admitted)
        history.append(had.copy())
    return history


@settings(max_examples=50, deadline=None)
@given(costs, costs, st.sampled_from([0.5, 1.0, 3.0]))
def test_two_that_always_want_differ_by_one_step_at_most(one: float, other: float, weight: float) -> None:
    world = World(1, {"tenant/one": Policy(weight=weight)})

    history = share(world, {"one": one, "other": other}, 200)

    begun = history[3:]
    base = history[2]
    for had in begun:
        gap = (had["one"] - base["one"]) / weight - (had["other"] - base["other"])
        assert abs(gap) <= 2 * max(one / weight, other) + 1e-6


@settings(max_examples=25, deadline=None)
@given(costs, costs, costs)
def test_with_several_slots_it_is_one_step_for_each(one: float, other: float, third: float) -> None:
    history = share(World(4), {"one": one, "other": other, "third": third}, 400)

    had, base = history[-1], history[20]
    gaps = [had[tenant] - base[tenant] for tenant in ("one", "other", "third")]
    assert max(gaps) - min(gaps) <= 2 * 4 * max(one, other, third) + 1e-6


@settings(max_examples=25, deadline=None)
@given(costs, costs)
def test_a_key_that_all_want_is_shared_by_cost_too(one: float, other: float) -> None:
    history = share(World(16, {"k": Policy(concurrency=2)}), {"one": one, "other": other}, 300, limit="k")

    had, base = history[-1], history[10]
    gap = (had["one"] - base["one"]) - (had["other"] - base["other"])
    assert abs(gap) <= 2 * 2 * max(one, other) + 1e-6


def test_who_did_not_want_for_a_while_has_saved_up_nothing() -> None:
    world = World(1)
    for number in range(150):
        world.submit(ticket(number, tenant="busy" if number % 2 else "other"))
    for _ in range(80):
        world.finish(world.running[0])
    for number in range(50):
        world.submit(ticket(1000 + number, tenant="newcomer"))

    went = [world.finish(world.running[0])[0].tenant for _ in range(30)]

    assert 9 <= Counter(went)["newcomer"] <= 11


def test_a_tenant_of_many_steps_does_not_keep_one_of_few_waiting() -> None:
    world = World(1)
    for number in range(100):
        world.submit(ticket(number, tenant="many"))
    world.submit(few := ticket(2000, tenant="few"))

    went = [*world.finish(world.running[0]), *world.finish(world.running[0])]

    assert few in went


def test_tenants_that_came_once_are_forgotten_while_others_go_on() -> None:
    line = FairLine(Policies().weight)
    numbers = iter(range(1_000_000))

    def push(tenant: str) -> None:
        line.push(Entry(ticket(tenant=tenant), next(numbers)))

    for tenant in ("one", "other"):
        push(tenant)
    most = 0
    for number in range(5000):
        push(f"guest {number}")
        for _ in range(3):
            entry = line.take()
            charged = line.charge(entry.ticket.tenant, 1.0)
            assert charged is not None
            line.settle(charged, 0.0)
            if entry.ticket.tenant in ("one", "other"):
                push(entry.ticket.tenant)
        most = max(most, line.tenants)

    assert most < 20


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
def test_withdrawn_anywhere_in_the_line_the_others_keep_their_order(what: list[tuple[str, bool]]) -> None:
    line = FairLine(Policies().weight)
    kept = []
    for number, (tenant, stays) in enumerate(what):
        line.push(entry := Entry(ticket(tenant=tenant), number))
        kept.append((entry, stays))
    for entry, stays in kept:
        if not stays:
            line.remove(entry)

    served = [line.take() for _ in range(line.size)]

    assert {entry.number for entry in served} == {entry.number for entry, stays in kept if stays}
    for tenant in "abc":
        order = [entry.number for entry in served if entry.ticket.tenant == tenant]
        assert order == sorted(order)

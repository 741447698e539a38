"""Runs get all their keys or none, in one order on every key, and nobody waits in a circle."""

from dataclasses import dataclass, field
from functools import partial
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.flow.admission.gate import RunGate
from skep.flow.runs import Claim
from skep.flow.steps import RunId

claims = st.lists(st.builds(Claim, st.sampled_from("abcd"), st.integers(1, 3)), max_size=3)
wishes = st.lists(st.tuples(claims, st.integers(0, 4)), max_size=15)


@dataclass
class House:
    """A gate, and who went through it."""

    gate: RunGate = field(default_factory=RunGate)
    wishes: dict[RunId, tuple[list[Claim], int]] = field(default_factory=dict)
    holding: list[RunId] = field(default_factory=list)
    served: list[RunId] = field(default_factory=list)

    def ask(self, name: str, *claims: Claim, priority: int = 2) -> bool:
        run = RunId(name)
        self.wishes[run] = (list(claims), priority)
        self.gate.request(run, claims, priority, partial(self._granted, run))
        return run in self.holding

    def go(self, run: RunId) -> None:
        if run in self.holding:
            self.holding.remove(run)
        self.gate.release(run)

    def waiting(self) -> list[RunId]:
        return [run for run in self.wishes if run not in self.served]

    def _granted(self, run: RunId) -> None:
        assert run not in self.served
        self.served.append(run)
        self.holding.append(run)
        for claim in self.wishes[run][0]:
            others = [other for other in self.holding if claim.key in self._keys(other)]
            assert len(others) <= min(self._capacity(other, claim.key) for other in others)

    def _keys(self, run: RunId) -> set[str]:
        return {claim.key for claim in self.wishes[run][0]}

    def _capacity(self, run: RunId, key: str) -> int:
        return min(claim.capacity for claim in self.wishes[run][0] if claim.key == key)


@settings(max_examples=200, deadline=None)
@given(wishes, st.randoms(use_true_random=False))
def test_no_key_is_over_its_capacity_and_everybody_is_served(
    wishes: list[tuple[list[Claim], int]], random: Random
) -> None:
    house, gone = House(), set[RunId]()

    for number, (claims, priority) in enumerate(wishes):
        house.ask(str(number), *claims, priority=priority)
        if random.random() < 0.3 and house.holding:
            house.go(random.choice(house.holding))
        if random.random() < 0.1 and (waiting := house.waiting()):
            gone.add(run := random.choice(waiting))
            house.go(run)
            house.served.append(run)
    while house.holding:
        house.go(random.choice(house.holding))

    assert len(house.served) == len(wishes)
    assert all(house.gate.holders(key) == () for key in "abcd")
    assert not house.gate._lines
    assert not house.gate._wishes


@settings(max_examples=200, deadline=None)
@given(wishes, st.randoms(use_true_random=False))
def test_of_those_that_cannot_share_a_key_the_higher_priority_goes_first_and_then_the_older(
    wishes: list[tuple[list[Claim], int]], random: Random
) -> None:
    house = House()
    house.ask("first", *(Claim(key) for key in "abcd"))
    for number, (claims, priority) in enumerate(wishes):
        house.ask(str(number), *(Claim(claim.key) for claim in claims), priority=priority)

    while house.holding:
        house.go(random.choice(house.holding))

    for key in "abcd":
        order = [
            (house.wishes[run][1], int(run))
            for run in house.served
            if run != "first" and key in {claim.key for claim in house.wishes[run][0]}
        ]
        assert order == sorted(order)


def test_two_keys_are_had_at_one_instant_or_not_at_all() -> None:
    house = House()
    house.ask("a", Claim("x"))
    house.ask("b", Claim("x"), Claim("y"))

    assert not house.ask("c", Claim("y"))
    assert house.gate.holders("y") == ()
    house.go(RunId("a"))

    assert house.holding == ["b"]


def test_as_many_as_the_capacity_hold_a_key_together() -> None:
    house = House()

    assert [house.ask(name, Claim("builds", 2)) for name in "abc"] == [True, True, False]
    house.go(RunId("a"))
    assert house.holding == ["b", "c"]


def test_who_wants_it_alone_is_not_passed_by_those_who_would_share() -> None:
    house = House()
    house.ask("a", Claim("k", 2))
    house.ask("alone", Claim("k", 1))

    assert not house.ask("b", Claim("k", 2))
    house.go(RunId("a"))

    assert house.holding == ["alone"]


def test_who_asks_again_is_granted_what_it_holds_and_keeps_its_age_where_it_waits() -> None:
    house, again = House(), list[str]()
    house.ask("a", Claim("k"))
    house.ask("b", Claim("k"))
    house.ask("c", Claim("k"))

    house.gate.request(RunId("a"), [Claim("k")], 2, lambda: again.append("a"))
    house.gate.request(RunId("b"), [Claim("k")], 2, lambda: again.append("b"))
    house.go(RunId("a"))

    assert again == ["a", "b"]


def test_a_run_that_is_released_by_another_that_was_granted_with_it_is_not_granted() -> None:
    gate, granted = RunGate(), list[str]()
    gate.request(RunId("a"), [Claim("k", 1)], 2, lambda: None)

    def first() -> None:
        granted.append("b")
        gate.release(RunId("c"))

    gate.request(RunId("b"), [Claim("k", 3)], 2, first)
    gate.request(RunId("c"), [Claim("k", 3)], 2, lambda: granted.append("c"))
    gate.request(RunId("d"), [Claim("k", 3)], 2, lambda: granted.append("d"))
    gate.release(RunId("a"))

    assert granted == ["b", "d"]


def test_it_says_who_has_the_lock_and_how_many_go_before() -> None:
    house = House()
    house.ask("a", Claim("app/shop"))
    house.ask("b", Claim("app/shop"))
    house.ask("c", Claim("app/shop"), Claim("builds", 2))

    (reason,) = house.gate.why(RunId("c"))

    assert (reason.kind, reason.subject, reason.holders) == ("lock", "app/shop", ("a",))
    assert reason.message == "app/shop is held by run a. 1 more goes before it."
    assert house.gate.why(RunId("a")) == ()


def test_it_says_how_much_of_a_limit_is_in_use_and_who_waits_before_it() -> None:
    house = House()
    house.ask("a", Claim("builds", 2))
    house.ask("other", Claim("x"))
    house.ask("b", Claim("builds", 2), Claim("x"))
    house.ask("c", Claim("builds", 2))

    (of_c,) = house.gate.why(RunId("c"))
    assert (of_c.kind, of_c.message) == ("limit", "builds is held by run a: 1 of 2. 1 more goes before it.")
    house.go(RunId("a"))
    assert RunId("c") in house.holding
    assert [reason.subject for reason in house.gate.why(RunId("b"))] == ["x"]

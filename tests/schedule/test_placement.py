"""Where a replica goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.model.errors import Exhausted
from skep.model.ids import Bytes, HostName
from skep.schedule.placement import Candidate, place

GIB = 1024**3


def host(name: str, promised: int = 0, memory: int = 8, *, ready: bool = True) -> Candidate:
    return Candidate(
        host=HostName(name), ready=ready, memory=Bytes(memory * GIB), promised=Bytes(promised * GIB)
    )


candidates = st.lists(
    st.builds(
        Candidate,
        host=st.sampled_from([HostName(f"host-{number}") for number in range(8)]),
        ready=st.booleans(),
        memory=st.integers(1, 64).map(lambda gib: Bytes(gib * GIB)),
        promised=st.integers(0, 300).map(lambda gib: Bytes(gib * GIB)),
    ),
    max_size=8,
    unique_by=lambda candidate: candidate.host,
)


def test_the_host_with_the_largest_free_share_is_chosen() -> None:
    assert place([host("a", 4), host("b", 2), host("c", 3)], Bytes(GIB)) == "b"
    assert place([host("small", 1, 2), host("large", 8, 64)], Bytes(GIB)) == "large"


def test_equal_hosts_are_chosen_by_name() -> None:
    assert place([host("b"), host("a")], Bytes(GIB)) == "a"


def test_hosts_that_are_not_ready_or_full_are_left_out() -> None:
    assert place([host("a", ready=False), host("b", 32), host("c", 31)], Bytes(GIB)) == "c"


def test_a_host_may_promise_more_than_it_has_but_not_without_bound() -> None:
    assert place([host("a", 31)], Bytes(GIB)) == "a"
    assert place([host("a", 7)], Bytes(GIB), overcommit=1.0) == "a"
    with pytest.raises(Exhausted):
        place([host("a", 8)], Bytes(GIB), overcommit=1.0)


def test_what_stands_in_the_way_is_named() -> None:
    with pytest.raises(Exhausted, match="None of the 2 hosts is ready"):
        place([host("a", ready=False), host("b", ready=False)], Bytes(GIB))
    with pytest.raises(Exhausted, match="1 ready hosts have promised"):
        place([host("a", 32), host("b", ready=False)], Bytes(GIB))
    with pytest.raises(Exhausted):
        place([], Bytes(GIB))


@given(candidates, st.integers(1, 64).map(lambda gib: Bytes(gib * GIB)))
def test_a_choice_is_always_ready_has_room_and_is_the_emptiest(found: list[Candidate], memory: Bytes) -> None:
    fitting = [one for one in found if one.ready and one.promised + memory <= 4 * one.memory]
    try:
        name = place(found, memory)
    except Exhausted:
        assert fitting == []
        return

    chosen = next(one for one in fitting if one.host == name)
    assert all(chosen.promised / chosen.memory <= one.promised / one.memory for one in fitting)
    assert place(list(reversed(found)), memory) == name

"""Where replicas go."""

import time
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.model.errors import Exhausted
from skep.model.ids import Bytes, HostName, TenantId
from skep.model.placement import attributes, parse_constraint
from skep.schedule.candidates import Candidate, Group
from skep.schedule.placement import Cluster

GIB = 1024**3
ALICE, BOB = TenantId("alice"), TenantId("bob")


def host(
    name: str,
    zone: str = "a",
    *,
    promised: int = 0,
    memory: int = 8,
    cpus: float = 8.0,
    tenant: TenantId | None = None,
    refuses: str = "",
    **labels: str,
) -> Candidate:
    return Candidate(
        host=HostName(name),
        zone=zone,
        pool=zone,
        refuses=refuses,
        tenant=tenant,
        cpus=cpus,
        memory=Bytes(memory * GIB),
        promised_memory=Bytes(promised * GIB),
        attributes=attributes(name, zone, "r", zone, labels),
    )


def group(replicas: int = 1, *, memory: int = GIB, **more: object) -> Group:
    plain = Group(what="shop/web", tenant=ALICE, replicas=replicas, memory=Bytes(memory))
    return msgspec.structs.replace(plain, **more)


def place(candidates: Sequence[Candidate], wanted: Group) -> tuple[HostName, ...]:
    return Cluster(candidates).place(wanted)


def test_the_host_with_the_largest_free_share_is_chosen() -> None:
    assert place([host("a", promised=4), host("b", promised=2), host("c", promised=3)], group()) == ("b",)
    assert place([host("small", promised=1, memory=2), host("large", promised=8, memory=64)], group()) == (
        "large",
    )


def test_equal_hosts_are_chosen_by_name() -> None:
    assert place([host("b"), host("a")], group()) == ("a",)


def test_cpus_count_as_memory_does() -> None:
    assert place([host("a", cpus=1), host("b", cpus=4)], group(cpus=1.0)) == ("b",)
    with pytest.raises(Exhausted, match="1 is out of CPUs to promise"):
        place([host("a", cpus=1)], group(2, cpus=1.0))


def test_replicas_are_spread_over_zones_first_and_hosts_then() -> None:
    hosts = [host("a1", "a"), host("a2", "a"), host("a3", "a"), host("b1", "b")]

    assert Counter(place(hosts, group(4))) == {"a1": 1, "a2": 1, "b1": 2}


def test_replicas_that_are_there_already_count() -> None:
    hosts = [host("a1", "a"), host("a2", "a"), host("b1", "b"), host("b2", "b")]
    present = {HostName("a1"): 1, HostName("b1"): 1}

    assert sorted(place(hosts, group(2, present=present))) == ["a2", "b2"]
    assert place(hosts, group(1, present={HostName("a1"): 1}))[0] in ("b1", "b2")


def test_what_runs_on_a_host_that_takes_nothing_counts_for_its_zone() -> None:
    hosts = [host("a1", "a", refuses="cordoned"), host("a2", "a"), host("b1", "b")]

    assert place(hosts, group(present={HostName("a1"): 1})) == ("b1",)


def test_packing_fills_one_host_after_the_other() -> None:
    hosts = [host("a1", "a", memory=2), host("b1", "b", memory=2, promised=1), host("c1", "c", memory=2)]

    assert place(hosts, group(4, pack=True)) == ("b1", "a1", "a1", "c1")


def test_a_preference_spreads_over_the_values_of_a_label() -> None:
    hosts = [host("a", rack="1"), host("b", rack="1"), host("c", rack="1"), host("d", rack="2")]

    assert Counter(place(hosts, group(4, spread=("node.labels.rack",))))[HostName("d")] == 2


def test_constraints_and_zones_choose_among_hosts() -> None:
    hosts = [host("a", "a", disk="ssd"), host("b", "b", disk="ssd"), host("c", "b")]
    ssd = (parse_constraint("node.labels.disk == ssd"),)
    other = (parse_constraint("node.labels.disk!=ssd"),)

    assert set(place(hosts, group(4, constraints=ssd))) == {"a", "b"}
    assert place(hosts, group(constraints=other)) == ("c",)
    assert place(hosts, group(constraints=ssd, zones=("b",))) == ("b",)
    assert place(hosts, group(constraints=(parse_constraint("node.hostname==c"),))) == ("c",)


def test_a_host_takes_no_more_of_a_service_than_it_may() -> None:
    hosts = [host("a"), host("b")]

    assert Counter(place(hosts, group(4, max_per_host=2))) == {"a": 2, "b": 2}
    with pytest.raises(Exhausted, match=r"1 of 5 replicas.*2 are with 2 of its replicas already"):
        place(hosts, group(5, max_per_host=2))


def test_a_pool_of_a_tenant_is_its_own_and_its_first() -> None:
    hosts = [host("alices", tenant=ALICE, memory=2), host("bobs", tenant=BOB), host("shared")]

    assert place(hosts, group(3)) == ("alices", "alices", "shared")


def test_groups_of_one_plan_do_not_count_on_the_same_room() -> None:
    cluster = Cluster([host("a", memory=2), host("b", memory=1)])
    cluster.put(group(1), HostName("b"))

    assert cluster.place(group(2)) == ("a", "a")
    with pytest.raises(Exhausted):
        cluster.place(group(1))


def test_what_was_not_placed_whole_has_taken_nothing() -> None:
    cluster = Cluster([host("a", memory=2)])
    with pytest.raises(Exhausted):
        cluster.place(group(3))

    assert cluster.place(group(2)) == ("a", "a")


def test_what_stands_in_the_way_is_counted_in_words() -> None:
    hosts = [
        host("a", refuses="cordoned"),
        host("b", refuses="cordoned"),
        host("c", tenant=BOB),
        host("d", promised=8),
        host("e", "b"),
    ]

    with pytest.raises(Exhausted) as caught:
        place(hosts, group(zones=("a",)))

    assert caught.value.message == (
        "No host has room for shop/web (1 GiB of memory): of 5 hosts 2 are cordoned, 1 is in another "
        "tenant's pool, 1 is not in a, 1 is out of memory to promise. Ask for less, remove what is not "
        "needed, or add a host."
    )
    with pytest.raises(Exhausted, match="There is no host for shop/web"):
        place([], group())


@pytest.mark.parametrize(
    ("constraint", "remedy"),
    [
        ("node.role == manager", "Ask for what 'skep host ls' shows"),
        ("node.labels.disk == ssd", "Say 'skep host label HOST disk=ssd'"),
    ],
)
def test_a_constraint_that_no_host_satisfies_comes_before_what_else_is_in_the_way(
    constraint: str, remedy: str
) -> None:
    hosts = [host("a"), host("b", refuses="cordoned"), host("c", tenant=BOB, disk="ssd")]

    with pytest.raises(Exhausted) as caught:
        place(hosts, group(constraints=(parse_constraint(constraint),)))

    assert caught.value.message.startswith(
        f"No host satisfies {constraint}, which shop/web asks for: of 3 hosts 1 is cordoned"
    )
    assert f"{remedy}, or take it out of deploy.placement.constraints." in caught.value.message


def test_a_constraint_that_a_host_without_room_satisfies_is_a_matter_of_room() -> None:
    hosts = [host("a", promised=8, disk="ssd"), host("b")]

    with pytest.raises(Exhausted, match="No host has room for shop/web"):
        place(hosts, group(constraints=(parse_constraint("node.labels.disk == ssd"),)))


def test_a_host_that_must_be_taken_says_why_it_cannot() -> None:
    cluster = Cluster([host("a", refuses="lost"), host("b", memory=1)])

    with pytest.raises(Exhausted, match="has to run on host a, where its disks are, but that is lost"):
        cluster.put(group(), HostName("a"))
    with pytest.raises(Exhausted, match="out of memory"):
        cluster.put(group(2), HostName("b"))
    with pytest.raises(Exhausted, match="not there any more"):
        cluster.put(group(), HostName("c"))


candidates = st.lists(
    st.builds(
        host,
        st.sampled_from([f"host-{number}" for number in range(8)]),
        st.sampled_from(["a", "b", "c"]),
        promised=st.integers(0, 6),
        memory=st.integers(1, 8),
        cpus=st.sampled_from([1.0, 2.5, 8.0]),
        tenant=st.sampled_from([None, None, ALICE, BOB]),
        refuses=st.sampled_from(["", "", "", "cordoned"]),
        disk=st.sampled_from(["ssd", "hdd"]),
    ),
    max_size=8,
    unique_by=lambda candidate: candidate.host,
)
present = st.dictionaries(
    st.sampled_from([HostName(f"host-{number}") for number in range(8)]), st.integers(1, 3), max_size=4
)
groups = st.builds(
    group,
    st.integers(1, 12),
    memory=st.integers(1, 3).map(lambda gib: gib * GIB),
    cpus=st.sampled_from([0.0, 0.5, 1.0]),
    pack=st.booleans(),
    max_per_host=st.none() | st.integers(1, 4),
    constraints=st.sampled_from([(), (parse_constraint("node.labels.disk == ssd"),)]),
    zones=st.sampled_from([(), ("a",), ("a", "b")]),
    present=present,
)


def room(candidate: Candidate, wanted: Group) -> int:
    """How many of the group the host can take."""
    allowed = (
        not candidate.refuses
        and candidate.tenant in (None, wanted.tenant)
        and (not wanted.zones or candidate.zone in wanted.zones)
        and all(one.allows(candidate.attributes) for one in wanted.constraints)
    )
    if not allowed:
        return 0
    fits = (candidate.memory - candidate.promised_memory) // wanted.memory
    if wanted.cpus:
        fits = min(fits, int(candidate.cpus // wanted.cpus))
    if wanted.max_per_host is not None:
        fits = min(fits, wanted.max_per_host - wanted.present.get(candidate.host, 0))
    return max(fits, 0)


@given(candidates, groups)
def test_everything_is_placed_that_has_room_and_never_more(found: list[Candidate], wanted: Group) -> None:
    rooms = {candidate.host: room(candidate, wanted) for candidate in found}
    try:
        chosen = Counter(place(found, wanted))
    except Exhausted:
        assert sum(rooms.values()) < wanted.replicas
        return

    assert chosen.total() == wanted.replicas
    assert all(count <= rooms[name] for name, count in chosen.items())


@given(candidates, groups)
def test_the_same_is_answered_in_whichever_order_hosts_come(found: list[Candidate], wanted: Group) -> None:
    assert answer(found, wanted) == answer(list(reversed(found)), wanted)


def answer(found: list[Candidate], wanted: Group) -> tuple[HostName, ...] | str:
    try:
        return place(found, wanted)
    except Exhausted as error:
        return error.message


@given(st.integers(1, 40), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_where_room_is_zones_and_hosts_differ_by_one_at_most(replicas: int, sizes: list[int]) -> None:
    """Counted from nothing: what is there already may be uneven."""
    found = [
        host(f"{zone}{number}", str(zone), memory=64)
        for zone, size in enumerate(sizes)
        for number in range(size)
    ]

    chosen = Counter(place(found, group(replicas)))

    by_zone = Counter({one.zone: 0 for one in found})
    for name, count in chosen.items():
        by_zone[name[0]] += count
        peers = [chosen[one.host] for one in found if one.zone == name[0]]
        assert max(peers) - min(peers) <= 1
    assert max(by_zone.values()) - min(by_zone.values()) <= 1


def test_ten_thousand_hosts_are_no_matter() -> None:
    found = [host(f"host-{number:05}", f"zone-{number % 3}", promised=number % 7) for number in range(10_000)]
    cluster = Cluster(found)

    began = time.perf_counter()
    chosen = cluster.place(group(1_000))
    took = time.perf_counter() - began

    assert len(set(chosen)) == 1_000
    assert took < 2.0


def a_cluster(tier: str = "") -> Candidate:
    return msgspec.structs.replace(host("k8s", "k8s", tier=tier), cluster="k8s")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("node.labels.disk == ssd", False),
        ("node.labels.disk != ssd", False),
        ("node.hostname == node-7", False),
        ("node.hostname == k8s", False),
        ("node.hostname != k8s", True),
        ("node.platform.arch == aarch64", False),
        ("node.role == manager", True),
        ("node.zone == elsewhere", True),
        ("node.labels.disk == no label", True),
        ("node.labels.disk != no label", False),
        ("node.labels.tier == gold", False),
        ("node.labels.tier == silver", True),
        ("node.labels.tier != gold", True),
    ],
)
def test_a_cluster_leaves_to_its_nodes_what_is_not_said_of_it_as_a_whole(text: str, refused: bool) -> None:
    wanted = group(constraints=(parse_constraint(text),), cluster="k8s")

    reasons = Cluster([a_cluster(tier="gold")]).refusals(wanted)

    assert reasons == ({HostName("k8s"): f"without {text}"} if refused else {})


def test_how_many_are_on_a_node_is_the_clusters_affair() -> None:
    assert place([a_cluster()], group(3, memory=1, max_per_host=1, cluster="k8s")) == ("k8s",) * 3

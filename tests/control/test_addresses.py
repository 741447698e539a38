"""Subnets and addresses: each promised once, and never one that belongs to the network itself."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.control.samples import network_row

from skep.control.networks.addresses import (
    Reserved,
    choose_addresses,
    choose_ipv6_addresses,
    count_reserved,
    mac_address,
)
from skep.control.plans.subnets import (
    SUBNET_BITS,
    choose_ipv6,
    choose_subnet,
    chosen_subnet,
    join,
    of_family,
    own_addresses,
    ranges,
)
from skep.model.errors import Conflict, Exhausted, InvalidInput
from skep.model.ids import NetworkId, PortId
from skep.providers.local.network.naming import LINKS6, ROUTERS6
from skep.store.networks import NetworkRow

POOL = IPv4Network("10.128.0.0/9")


def number(text: str) -> int:
    return int(IPv4Address(text))


def network(subnet: str = "10.1.0.0/28", cursor: int = 0) -> NetworkRow:
    space = IPv4Network(subnet)
    row = network_row("default", subnet)
    return msgspec.structs.replace(
        row, gateway=str(space[1]), cursor=cursor or int(space.network_address) + 1
    )


networks = st.builds(
    lambda bits, start, offset: network(
        str(IPv4Network((number("10.0.0.0") + (start << (32 - bits)), bits))),
        number("10.0.0.0") + (start << (32 - bits)) + offset % (1 << (32 - bits)),
    ),
    st.integers(24, 29),
    st.integers(0, 50),
    st.integers(0, 255),
)


@settings(deadline=None)
@given(networks, st.data())
def test_no_address_is_given_twice_and_none_that_is_the_networks_own(
    row: NetworkRow, data: st.DataObject
) -> None:
    subnet = IPv4Network(row.subnet)
    every = [int(address) for address in subnet.hosts() if str(address) != row.gateway]
    used = data.draw(st.sets(st.sampled_from(every)))
    free = [address for address in every if address not in used]
    fixed = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    others = data.draw(st.integers(0, len(free) - len(fixed)))
    wanted = data.draw(st.permutations([*(str(IPv4Address(one)) for one in fixed), *[None] * others]))

    chosen, _ = choose_addresses(row, list(wanted), set(used))

    assert len(set(chosen)) == len(chosen) == len(wanted)
    assert set(chosen) <= set(free)
    for one, text in zip(chosen, wanted, strict=True):
        assert text is None or one == number(text)


@st.composite
def blocks(draw: st.DrawFn, row: NetworkRow) -> list[Reserved]:
    """Reservations that do not overlap; they may hold the network's own addresses."""
    subnet = IPv4Network(row.subnet)
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    ends = sorted(draw(st.sets(st.integers(first, last), max_size=8)))
    return [Reserved(*pair) for pair in zip(ends[::2], ends[1::2], strict=False)]


@settings(deadline=None)
@given(networks, st.data())
def test_what_is_reserved_is_given_to_who_asks_for_it_and_to_nobody_else(
    row: NetworkRow, data: st.DataObject
) -> None:
    kept = data.draw(blocks(row))
    own = own_addresses(row)
    every = [int(address) for address in IPv4Network(row.subnet) if int(address) not in own]
    free = [address for address in every if not any(address in one for one in kept)]
    asked = [address for address in every if address not in free]
    fixed = data.draw(st.lists(st.sampled_from(asked), unique=True, max_size=5)) if asked else []
    wanted = [*(str(IPv4Address(one)) for one in fixed), *[None] * len(free)]

    chosen, _ = choose_addresses(row, wanted, set(), kept)

    assert chosen[: len(fixed)] == fixed
    assert sorted(chosen[len(fixed) :]) == free
    assert count_reserved(ranges(row)[0], set(chosen), kept) == len(asked) - len(fixed)
    with pytest.raises(Exhausted, match="is full"):
        choose_addresses(row, [*wanted, None], set(), kept)
    if fixed:
        with pytest.raises(Conflict, match="reserved by its owner"):
            choose_addresses(row, wanted, set(), kept, guest=True)


@settings(deadline=None)
@given(networks, st.data())
def test_the_order_of_claims_does_not_matter(row: NetworkRow, data: st.DataObject) -> None:
    kept = data.draw(blocks(row))
    free = [int(one) for one in IPv4Network(row.subnet).hosts() if str(one) != row.gateway]
    fixed = data.draw(st.lists(st.sampled_from(free), unique=True, max_size=4))
    wanted = [*(str(IPv4Address(one)) for one in fixed), *[None] * data.draw(st.integers(0, 4))]
    other = data.draw(st.permutations(wanted))
    room = sum(1 for one in free if one not in fixed and not any(one in block for block in kept))
    assume(room >= wanted.count(None))

    one, another = (choose_addresses(row, list(order), set(), kept) for order in (wanted, other))

    assert sorted(one[0]) == sorted(another[0])
    assert one[1] == another[1]


@settings(deadline=None)
@given(networks, st.data())
def test_claims_and_releases_in_any_order_keep_every_promise(row: NetworkRow, data: st.DataObject) -> None:
    """Never one address for two; and while another one was never given out, none comes back."""
    kept = data.draw(blocks(row))
    held: set[int] = set()
    freed: list[int] = []
    free = [int(one) for one in IPv4Network(row.subnet).hosts() if str(one) != row.gateway]
    fresh = {one for one in free if not any(one in block for block in kept)}
    for _ in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.booleans()) is True:
            gone = data.draw(st.sampled_from(sorted(held)))
            held.discard(gone)
            freed.append(gone)
            continue
        if not fresh and not freed:
            break
        (address,), row = choose_addresses(row, [None], held, kept)
        assert address in free
        assert address not in held
        assert not any(address in block for block in kept)
        assert not fresh or address in fresh
        fresh.discard(address)
        freed = [one for one in freed if one != address]
        held.add(address)


def test_who_finds_a_network_full_hears_what_is_reserved_unless_it_is_a_guest() -> None:
    kept = [
        Reserved(number("10.1.0.2"), number("10.1.0.13"), "printers"),
        Reserved(number("10.1.0.14"), number("10.1.0.14")),
    ]

    with pytest.raises(Exhausted, match=r"reserved \(10\.1\.0\.2-10\.1\.0\.13 for printers, 10\.1\.0\.14\)"):
        choose_addresses(network(), [None], set(), kept)
    with pytest.raises(Exhausted, match="ask its owner") as caught:
        choose_addresses(network(), [None], set(), kept, guest=True)

    assert "printers" not in str(caught.value)


@settings(deadline=None)
@given(networks, st.integers(0, 5))
def test_exactly_what_is_there_can_be_given_out(row: NetworkRow, more: int) -> None:
    capacity = IPv4Network(row.subnet).num_addresses - 3

    chosen, _ = choose_addresses(row, [None] * capacity, set())

    assert len(set(chosen)) == capacity
    with pytest.raises(Exhausted, match=f"all {capacity} addresses are in use"):
        choose_addresses(row, [None] * (capacity + 1 + more), set())


def test_a_freed_address_rests_until_the_others_had_their_turn() -> None:
    row = network()
    seen: list[int] = []
    for _ in range(13):
        (address,), row = choose_addresses(row, [None], set())
        seen.append(address)

    assert seen == [number("10.1.0.2") + step for step in range(13)]
    assert choose_addresses(row, [None], set())[0] == [number("10.1.0.2")]


@settings(deadline=None)
@given(networks, st.lists(st.integers(25, 29), min_size=1, max_size=4), st.data())
def test_a_subnet_is_used_when_those_before_it_are_full(
    row: NetworkRow, bits: list[int], data: st.DataObject
) -> None:
    more = [(f"10.{200 + place}.0.0/{size}", None) for place, size in enumerate(bits)]
    row = join(row, more, [])
    kept = data.draw(blocks(row))
    own = own_addresses(row)
    free = [
        [int(host) for host in one.cidr if int(host) not in own and not any(int(host) in k for k in kept)]
        for one in ranges(row)
    ]
    count = data.draw(st.integers(0, sum(map(len, free))))

    chosen: list[int] = []
    for _ in range(count):
        (address,), row = choose_addresses(row, [None], set(chosen), kept)
        chosen.append(address)

    everything = [address for one in free for address in one]
    full = [one for one in free if set(one) <= set(chosen)]
    assert len(set(chosen)) == count
    assert set(chosen) <= set(everything)
    assert all(not set(one) & set(chosen) for one in free[len(full) + 1 :])
    with pytest.raises(Exhausted, match="Each of the subnets"):
        choose_addresses(row, [None] * (len(everything) - count + 1), set(chosen), kept)


def test_a_subnet_that_joined_keeps_its_place_in_the_turns() -> None:
    row = join(network("10.1.0.0/29"), [("10.2.0.0/24", "10.2.0.254")], [])
    _, row = choose_addresses(row, [None] * 5, set())

    (one,), row = choose_addresses(row, [None], {number(f"10.1.0.{n}") for n in range(2, 7)})
    (two,), row = choose_addresses(row, [None], {number(f"10.1.0.{n}") for n in range(2, 7)})
    (fixed,), row = choose_addresses(row, ["10.2.0.9"], set())

    assert [str(IPv4Address(address)) for address in (one, two, fixed)] == [
        "10.2.0.2",
        "10.2.0.3",
        "10.2.0.9",
    ]
    assert ranges(row)[1].cursor == two
    with pytest.raises(Conflict, match="in use"):
        choose_addresses(row, ["10.2.0.254"], set())


@pytest.mark.parametrize(
    ("subnet", "gateway", "error", "words"),
    [
        ("10.1.0.8/29", None, Conflict, "overlaps 10.1.0.0/28"),
        ("10.9.0.0/25", None, Conflict, "overlaps 10.9.0.0/24"),
        ("10.2.0.0/24", "10.3.0.1", InvalidInput, "no address of a machine"),
        ("10.2.0.0/30", None, InvalidInput, "too small"),
    ],
)
def test_a_subnet_that_joins_must_make_sense(
    subnet: str, gateway: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        join(network(), [(subnet, gateway)], [IPv4Network("10.9.0.0/24")])


def test_a_network_has_a_bounded_number_of_subnets() -> None:
    with pytest.raises(Exhausted, match="17 subnets; 16 are possible"):
        join(network(), [(f"10.{place}.0.0/24", None) for place in range(10, 26)], [])


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("10.1.0.300", InvalidInput, "is not an IPv4 address"),
        ("10.2.0.5", InvalidInput, "is not in subnet 10.1.0.0/28"),
        ("10.1.0.1", Conflict, "10.1.0.1 of network 'default' is in use"),
        ("10.1.0.0", Conflict, "in use"),
        ("10.1.0.15", Conflict, "in use"),
        ("10.1.0.7", Conflict, "in use"),
    ],
)
def test_a_fixed_address_must_be_free(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        choose_addresses(network(), [text], {number("10.1.0.7")})


def test_a_fixed_address_is_not_given_twice() -> None:
    with pytest.raises(Conflict):
        choose_addresses(network(), ["10.1.0.5", "10.1.0.5"], set())


@given(st.lists(st.integers(1, 16_383), unique=True, max_size=30))
def test_subnets_that_nobody_chose_never_overlap(numbers: list[int]) -> None:
    taken: list[IPv4Network] = []
    for index in numbers:
        subnet = choose_subnet(None, "n", taken, POOL, index)
        assert subnet.prefixlen == SUBNET_BITS
        assert subnet.subnet_of(POOL)
        assert not any(subnet.overlaps(other) for other in taken)
        taken.append(subnet)


def test_a_pool_without_room_is_named() -> None:
    pool = IPv4Network("10.0.0.0/19")
    taken = list(pool.subnets(new_prefix=20))

    with pytest.raises(Exhausted, match=r"No subnet of 10\.0\.0\.0/19 is left for network 'back'"):
        choose_subnet(None, "back", taken, pool, 1)


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ("10.1.0.0/33", InvalidInput, "is not a subnet"),
        ("10.1.0.5/24", InvalidInput, "host bits"),
        ("fd00::/64", InvalidInput, "is not an IPv4 subnet"),
        ("10.1.0.0/30", InvalidInput, "too small"),
        ("10.0.0.0/7", InvalidInput, "too large"),
        ("127.1.0.0/16", InvalidInput, "no machine"),
        ("224.1.0.0/16", InvalidInput, "no machine"),
        ("240.0.0.0/8", InvalidInput, "no machine"),
        ("0.0.0.0/8", InvalidInput, "no machine"),
        ("10.9.0.0/25", Conflict, "overlaps 10.9.0.0/24"),
    ],
)
def test_a_chosen_subnet_must_make_sense(wanted: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        choose_subnet(wanted, "back", [IPv4Network("10.9.0.0/24")], POOL, 1)


@given(st.text(max_size=30))
def test_a_mac_is_one_nics_own_and_always_the_same(port: str) -> None:
    mac = mac_address(PortId(port))

    first = int(mac[:2], 16)
    assert (first & 1, first & 2, len(mac)) == (0, 2, 17)
    assert mac == mac_address(PortId(port))


def with_ipv6(bits: int, start: int, row: NetworkRow) -> NetworkRow:
    return join(row, [(str(IPv6Network((0xFD01 << 112 | start << (128 - bits), bits))), None)], [])


six = st.builds(
    with_ipv6,
    st.integers(64, 120),
    st.integers(0, 2**20),
    networks,
)


@settings(deadline=None)
@given(six, st.integers(0, 40), st.data())
def test_every_port_gets_an_ipv6_address_of_its_own(row: NetworkRow, count: int, data: st.DataObject) -> None:
    (space,) = of_family(row, 6)
    used = data.draw(st.sets(st.integers(space.first, space.first + 60), max_size=60)) - space.own
    kept = [Reserved(space.first + 20, space.first + 30)]
    fixed = space.first + 25
    used -= {fixed}
    first, _ = choose_addresses(row, [None], set())

    chosen, row = choose_ipv6_addresses(row, [str(IPv6Address(fixed)), *[None] * count], used, kept)

    assert len(set(chosen)) == count + 1
    assert chosen[0] == fixed
    assert not set(chosen) & (used | space.own)
    assert all(one is not None and one in space and one not in kept[0] for one in chosen[1:])
    assert choose_addresses(row, [None], set())[0] == first


def test_a_network_without_ipv6_gives_none_and_refuses_who_asks() -> None:
    assert choose_ipv6_addresses(network(), [None, None], set()) == ([None, None], network())
    with pytest.raises(InvalidInput, match="has no IPv6"):
        choose_ipv6_addresses(network(), ["fd00::5"], set())


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_an_ipv6_subnet_that_nobody_chose_is_unique_local_and_the_networks_own(one: str, other: str) -> None:
    row = msgspec.structs.replace(network(), id=NetworkId(one))
    first = IPv6Network(choose_ipv6(row, []))

    second = IPv6Network(choose_ipv6(msgspec.structs.replace(row, id=NetworkId(other)), [first]))

    assert first.prefixlen == second.prefixlen == 64
    assert first.subnet_of(IPv6Network("fd00::/8"))
    assert not first.overlaps(second)
    assert choose_ipv6(row, []) == str(first)


@pytest.mark.parametrize(
    ("subnets", "error", "words"),
    [
        (["fd00:1::/64", "fd00:2::/64"], Conflict, "two IPv6 subnets"),
        (["fe80::/64"], InvalidInput, "no machine"),
        (["fd73:6b65:7000::/64"], InvalidInput, "no machine"),
        (["fd00:ec2::/64"], InvalidInput, "no machine"),
        (["fd00:1::/127"], InvalidInput, "too small"),
        (["fd00::/16"], InvalidInput, "too large"),
    ],
)
def test_an_ipv6_subnet_must_make_sense(subnets: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        join(network(), [(one, None) for one in subnets], [])


@pytest.mark.parametrize("address", ["fd00:1::1:0", "fd00:1::5:0:0:1", "fd00:2::5", "10.1.0.5"])
def test_an_ipv6_address_is_on_the_link_or_refused(address: str) -> None:
    row = join(network(), [("fd00:1::/64", None)], [])

    with pytest.raises(InvalidInput, match=r"is not in subnet fd00:1::/64 \(up to fd00:1::ffff\)"):
        choose_ipv6_addresses(row, [address], set())
    with pytest.raises(InvalidInput, match="no address of a machine"):
        join(network(), [("fd00:1::/64", address)], [])

    assert choose_ipv6_addresses(row, ["fd00:1::ff"], set())[0] == [int(IPv6Address("fd00:1::ff"))]


def test_what_routers_have_of_ipv6_is_no_tenants() -> None:
    for own in (LINKS6, ROUTERS6):
        with pytest.raises(InvalidInput, match="no machine"):
            chosen_subnet(str(own), "n", [])

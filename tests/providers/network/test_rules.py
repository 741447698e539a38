"""Decisions that need no kernel."""

from contextlib import AsyncExitStack
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.network.conftest import network, port

from skep.control.ports import Fabric
from skep.model.errors import InvalidInput
from skep.model.host import Backend, NetworkConfig, PortConfig, Publication, VirtualIp
from skep.model.ids import NetworkId, PortId, ServiceId, new_id
from skep.providers.local.network import LocalFabric, virtual_ips
from skep.providers.local.network.directory import Directory
from skep.providers.local.network.forward import Forwarder
from skep.providers.local.network.listeners import conflicting
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import Names, bridge_end, link_addresses
from skep.providers.local.network.nft import Chain, Found, Set, Table, plan
from skep.providers.local.network.rules.publications import link_ports


def table(*rules: str, elements: dict[str, str] | None = None) -> Table:
    return Table(
        family="inet",
        name="t",
        sets=(Set("s", "map", "type ipv4_addr : ipv4_addr;", elements or {}),),
        chains=(Chain("c", rules),),
    )


def found(like: Table) -> Found:
    return Found(
        {s.name: dict(s.elements or {}) for s in like.sets}, {chain.name: chain.tags for chain in like.chains}
    )


def test_what_is_right_is_not_touched() -> None:
    wanted = table("accept", elements={"10.0.0.1": "10.0.0.2"})

    assert plan(wanted, found(wanted)) == ""


def test_only_what_differs_is_changed() -> None:
    wanted = table("accept", elements={"10.0.0.1": "10.0.0.2", "10.0.0.3": "10.0.0.4"})
    there = table("accept", elements={"10.0.0.1": "10.0.0.9", "10.0.0.3": "10.0.0.4"})

    assert plan(wanted, found(there)).splitlines() == [
        "delete element inet t s { 10.0.0.1 }",
        "add element inet t s { 10.0.0.1 : 10.0.0.2 }",
    ]


def test_a_changed_rule_replaces_its_chain() -> None:
    commands = plan(table("drop"), found(table("accept"))).splitlines()

    assert commands[:2] == ["add chain inet t c", "flush chain inet t c"]
    assert commands[2].startswith("add rule inet t c drop comment")


def test_names_of_interfaces_fit_and_tell_instances_apart() -> None:
    net, one = NetworkId(new_id()), PortId(new_id())

    assert len(Names("skep").uplink(net)) <= 15
    assert len(bridge_end(one)) <= 15
    assert Names("skep").uplink(net) != Names("other").uplink(net)
    with pytest.raises(InvalidInput):
        Names("../x")


def test_every_index_has_a_link_of_its_own() -> None:
    pool = IPv4Network("100.100.0.0/16")

    assert link_addresses(pool, 1) == (IPv4Address("100.100.0.5"), IPv4Address("100.100.0.6"))
    assert link_addresses(pool, 16383)[1] == IPv4Address("100.100.255.254")
    for index in (0, 16384):
        with pytest.raises(InvalidInput):
            link_addresses(pool, index)


def publication(published: int, host_ip: str = "", protocol: Literal["tcp", "udp"] = "tcp") -> Publication:
    return Publication(
        host_ip=host_ip,
        published=published,
        protocol=protocol,
        network=NetworkId("n"),
        target=80,
        addresses=(),
    )


def test_link_ports_are_kept_and_never_shared() -> None:
    wanted = (publication(80), publication(80, "127.0.0.1"), publication(81))
    before = {("tcp", "", 81): 5000}

    assert link_ports(wanted, before, {("tcp", 1024)}) == (80, 1025, 5000)


@pytest.mark.parametrize(
    ("listener", "host_ip", "meets"),
    [
        (("tcp", IPv4Address("0.0.0.0"), 80), "127.0.0.1", True),
        (("tcp", IPv4Address("127.0.0.1"), 80), "0.0.0.0", True),
        (("tcp", IPv4Address("127.0.0.1"), 80), "192.0.2.1", False),
        (("tcp", IPv6Address("::"), 80), "192.0.2.1", True),
        (("tcp", IPv6Address("::1"), 80), "0.0.0.0", False),
        (("tcp", IPv6Address("::ffff:192.0.2.1"), 80), "192.0.2.1", True),
        (("udp", IPv4Address("0.0.0.0"), 80), "0.0.0.0", False),
        (("tcp", IPv4Address("0.0.0.0"), 81), "0.0.0.0", False),
    ],
)
def test_a_listener_is_in_the_way_where_addresses_meet(
    listener: tuple[str, IPv4Address | IPv6Address, int], host_ip: str, meets: bool
) -> None:
    assert (conflicting(publication(80, host_ip), [listener]) is not None) == meets


def test_a_directory_forgets_all_it_learned() -> None:
    net = network()
    names = Directory(lambda replica: True)
    ports = [port(net, number, "shop", ("web", f"web-{number}")) for number in (5, 6)]
    for one in (*ports, *ports):
        names.add(one)
    assert names.resolve(ports[0].address, "web") == (ports[0].address, ports[1].address)

    for one in ports:
        names.remove(one.address)
        names.remove(one.address)

    assert names.resolve(ports[0].address, "web") is None
    assert names.reverse(ports[0].address) is None


def test_a_replica_on_two_networks_means_both_and_its_own_app_first() -> None:
    edge, inside = network(), network()
    mine_at_edge, mine_inside = port(edge, 5, "shop", ("proxy",)), port(inside, 5, "shop", ("proxy",))
    places: dict[IPv4Address, list[tuple[Directory, IPv4Address]]] = {}
    at_edge = Directory(lambda replica: True, lambda asker: places.get(asker.address, []))
    within = Directory(lambda replica: True)
    places[mine_at_edge.address] = [(within, mine_inside.address)]
    stranger, backend = port(edge, 7, "blog", ("backend",)), port(inside, 9, "shop", ("backend",))
    for one in (mine_at_edge, stranger):
        at_edge.add(one)
    for one in (mine_inside, backend):
        within.add(one)

    assert at_edge.resolve(mine_at_edge.address, "backend") == (backend.address,)
    assert at_edge.resolve(mine_at_edge.address, "backend.blog") == (stranger.address,)
    assert at_edge.resolve(stranger.address, "proxy") == (mine_at_edge.address,)


def test_names_of_two_tenants_on_one_network_do_not_meet() -> None:
    """`shop` is the owner's; `shop.acme` and `bank.acme` are apps of a guest, `shop.evil` of another."""
    net, names = network(), Directory(lambda replica: True)
    web, db = port(net, 5, "shop", ("web",)), port(net, 6, "shop", ("db",))
    theirs, bank = port(net, 7, "shop.acme", ("web",)), port(net, 8, "bank.acme", ("safe",))
    evil = port(net, 9, "shop.evil", ("db", "safe", "web", "only", "web.shop"))
    for one in (web, db, theirs, bank, evil):
        names.add(one)

    def found(asker: PortConfig, name: str) -> PortConfig | None:
        answer = names.resolve(asker.address, name)
        return names.at(answer[0]) if answer else None

    assert found(db, "web") == found(db, "web.shop") == web
    assert found(bank, "web") == found(bank, "web.shop") == theirs
    assert found(db, "web.shop.acme") == found(evil, "web.shop.acme") == theirs
    assert found(theirs, "safe") == found(web, "safe.bank.acme") == bank
    assert found(theirs, "db.shop") == db
    for asker, name in ((web, "only"), (web, "safe"), (theirs, "db"), (theirs, "only"), (web, "web.acme")):
        assert found(asker, name) is None
    assert names.reverse(theirs.address) == "web.shop.acme"


async def test_an_asker_has_only_so_many_questions_under_way() -> None:
    forwarder = Forwarder(Namespaces(), (), per_asker=2, total=3)

    async with AsyncExitStack() as turns:
        granted = [
            await turns.enter_async_context(forwarder.turn(asker))
            for asker in ("greedy", "greedy", "greedy", "modest", "late")
        ]

    assert granted == [True, True, False, True, False]
    async with forwarder.turn("greedy") as again:
        assert again


def satisfies(fabric: LocalFabric) -> Fabric:
    """For the type checker: the class is what control asks for."""
    return fabric


def virtual_ip(net: NetworkConfig, number: int, *names: str, app: str = "shop") -> VirtualIp:
    return VirtualIp(service=ServiceId(names[0]), address=net.subnet[number], app=app, names=names)


def test_names_of_services_lead_to_virtual_ips_and_tasks_to_replicas() -> None:
    net, names = network(), Directory(lambda replica: replica != down.replica)
    web, down = port(net, 5, names=("web-0", "web", "front")), port(net, 6, names=("web-1", "web", "front"))
    plain, bank = port(net, 7, names=("plain-0", "plain", "front")), port(net, 8, "bank", ("db-0", "db"))
    for one in (web, down, plain, bank):
        names.add(one)

    names.lead([virtual_ip(net, 100, "web", "front"), virtual_ip(net, 101, "db", app="bank")])

    def meant(name: str) -> set[int] | None:
        found = names.resolve(plain.address, name)
        return None if found is None else {int(one) - int(net.subnet[0]) for one in found}

    assert (meant("web"), meant("Web.Shop"), meant("web-0"), meant("web-1")) == ({100}, {100}, {5}, set())
    assert (meant("tasks.web"), meant("tasks.web.shop"), meant("tasks.none")) == ({5}, {5}, None)
    assert (meant("front"), meant("plain"), meant("tasks.front")) == ({100, 7}, {7}, {5, 7})
    assert (meant("db"), meant("db.bank"), meant("tasks.db.bank"), meant("tasks.db")) == (
        {101},
        {101},
        {8},
        {8},
    )
    assert names.reverse(net.subnet[100]) == "web.shop"

    names.lead([])

    assert (meant("web"), names.reverse(net.subnet[100])) == ({5}, None)


def test_virtual_ips_of_two_tenants_on_one_network_do_not_meet() -> None:
    net, names = network(), Directory(lambda replica: True)
    owner, guest = port(net, 5, "shop", ("a-0", "a")), port(net, 6, "shop.acme", ("b-0", "b"))
    for one in (owner, guest):
        names.add(one)

    names.lead([virtual_ip(net, 100, "web"), virtual_ip(net, 101, "web", app="shop.acme")])

    asked = {one.app: names.resolve(one.address, "web") for one in (owner, guest)}
    assert asked == {"shop": (net.subnet[100],), "shop.acme": (net.subnet[101],)}
    assert names.resolve(owner.address, "web.shop.acme") == (net.subnet[101],)


@settings(deadline=None)
@given(weights=st.lists(st.integers(0, 256), max_size=300))
def test_numbers_are_shared_out_whole_and_by_weight(weights: list[int]) -> None:
    net = network(subnet="10.1.0.0/20")
    behind = tuple(Backend(address=net.subnet[2 + n], weight=weight) for n, weight in enumerate(weights))
    one = msgspec.structs.replace(virtual_ip(net, 4000, "web"), backends=behind)

    numbers = next(found for found in virtual_ips.table([one]).sets if found.name.startswith("at_")).elements

    shares: dict[str, int] = {}
    ends = sorted(
        (int(key.split("-")[0]), int(key.split("-")[-1]), to) for key, to in (numbers or {}).items()
    )
    for first, last, to in ends:
        assert first == sum(shares.values())
        shares[to] = last - first + 1
    total = sum(weights)
    assert sum(shares.values()) == (65_536 if total else 0)
    assert all(
        abs(shares.get(str(each.address), 0) - each.weight * 65_536 / total) < 1 for each in behind if total
    )

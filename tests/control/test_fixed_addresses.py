"""Addresses that services ask for in a cluster: which it has, and that nobody takes another's."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import HOST, Installation, installation
from tests.control.samples import nothing, stand_on_cluster
from tests.control.simulation import app, service

from skep.control.apps.strategies import why_alone
from skep.control.callers import Caller, Role
from skep.control.desired import DesiredState
from skep.control.plans.fixed_addresses import of_service, problems
from skep.control.plans.homes import home_of
from skep.control.plans.specifications import Limits
from skep.flow import RunId, RunState
from skep.model.errors import Unsupported
from skep.model.host import FixedAddress
from skep.model.ids import HostName, ZoneName
from skep.model.needs import Need
from skep.model.spec import AppExtensions, AppNetwork, AppSpec, NetworkAttachment, ServiceSpec
from skep.store import replicas

K8S = ZoneName("k8s")
RANGES = ("10.9.0.0/24", "fd09::/64")


def web(**places: NetworkAttachment) -> ServiceSpec:
    wanted = service(endpoint_mode="dnsrr")  # no virtual IP, which would have an address too
    return msgspec.structs.replace(wanted, networks=places)


def at(address: str, six: str | None = None, mac: str | None = None) -> NetworkAttachment:
    return NetworkAttachment(ipv4_address=address, ipv6_address=six, mac_address=mac)


def there(spec: AppSpec, *lacks: Need) -> ZoneName | None:
    """The home of the app in a cluster that has addresses of `RANGES`."""
    facts = msgspec.structs.replace(
        nothing(),
        zones={HostName("k8s"): K8S},
        clusters={K8S: frozenset(lacks)},
        ranges={K8S: () if Need.ADDRESSES in lacks else RANGES},
    )
    return home_of(facts, msgspec.structs.replace(spec, x_skep=AppExtensions(zones=("k8s",))))


def test_an_address_of_a_range_is_had_and_one_of_none_is_refused_with_those_that_there_are() -> None:
    within = app(web=web(n=at("10.9.0.7", "fd09::7", "02:00:00:00:00:01")))
    outside = app(web=web(n=at("10.8.0.7")), db=web(n=NetworkAttachment(mac_address="02:00:00:00:00:01")))

    assert there(within) == K8S
    with pytest.raises(Unsupported) as caught:
        there(outside)
    assert "service 'web' asks for the address 10.8.0.7, which is not in 10.9.0.0/24 or fd09::/64" in str(
        caught.value.message
    )
    assert "'db'" not in caught.value.message


@pytest.mark.parametrize(
    ("address", "had"),
    [("10.9.1.1", False), ("10.9.1.2", True), ("10.9.1.254", True), ("10.9.1.255", False)],
)
def test_a_range_may_leave_a_gateway_out(address: str, had: bool) -> None:
    spans = ["fd09::2-fd09::ff", "10.9.1.2-10.9.1.254"]

    assert (not list(problems(app(web=web(n=at(address))), spans))) is had


def test_a_pod_has_one_address_for_all_of_its_networks() -> None:
    one = app(web=web(back=at("10.9.0.7"), front=NetworkAttachment()))
    two = app(web=web(back=at("10.9.0.7"), front=at("10.9.0.8")))

    assert there(one) == K8S
    with pytest.raises(Unsupported, match="asks for addresses on the networks back and front"):
        there(two)


@pytest.mark.parametrize("place", [at("10.9.0.7"), NetworkAttachment(ipv6_address="fd09::7")])
def test_who_has_one_is_replaced_in_its_place(place: NetworkAttachment) -> None:
    assert why_alone(web(n=place)) == "its address is fixed"


def test_a_cluster_without_addresses_refuses_all() -> None:
    with pytest.raises(Unsupported, match=r"on network 'n' .nothing there gives fixed ones: leave it out"):
        there(app(web=web(n=at("10.9.0.7"))), Need.ADDRESSES)


def test_what_is_asked_for_is_what_the_container_has() -> None:
    asked = of_service(web(n=at("10.9.0.7", "FD09::7", "02:AA:00:00:00:01")))

    assert asked == FixedAddress(
        address=IPv4Address("10.9.0.7"), address6=IPv6Address("fd09::7"), mac="02:aa:00:00:00:01"
    )
    assert of_service(web(n=NetworkAttachment())) is None


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    """Its one host is a cluster."""
    async with installation(tmp_path) as made:
        await stand_on_cluster(made.database, "zone", HOST, ranges=RANGES)
        yield made


async def member(house: Installation, tenant: str) -> Caller:
    """With a network of the addresses that the cluster has: those of other tenants have them, too."""
    await house.control.tenants.create(house.admin, tenant)
    made = await house.person(f"{tenant}-1", Role.MEMBER, tenant)
    await house.control.networks.create(made, "n", subnet="10.9.0.0/24")
    return made


def fixed(address: str, name: str = "shop", mode: str = "one") -> AppSpec:
    made = app(name, web=msgspec.structs.replace(web(n=at(address)), environment={"MODE": mode}))
    return msgspec.structs.replace(made, networks={"n": AppNetwork(external="n")})


async def put(house: Installation, caller: Caller, spec: AppSpec) -> None:
    await house.finish(await house.control.apps.apply(caller, spec))


async def refused(house: Installation, caller: Caller, spec: AppSpec) -> str:
    accepted = await house.control.apps.apply(caller, spec)
    record = await house.flows.wait(RunId(str(accepted.run)), 30)
    assert record.state is RunState.FAILED
    return str(record.error)


async def test_an_address_is_one_tenants_until_its_app_is_gone(house: Installation) -> None:
    first, second = await member(house, "first"), await member(house, "second")
    await put(house, first, fixed("10.9.0.7"))
    await put(house, first, fixed("10.9.0.7", mode="two"))

    said = await refused(house, second, fixed("10.9.0.7"))
    await put(house, second, fixed("10.9.0.8"))
    await house.finish(await house.control.apps.remove(first, "shop"))
    await put(house, second, fixed("10.9.0.7", "other"))

    assert "web-0: address 10.9.0.7 is in use in host-1" in said
    assert "first" not in said
    async with house.database.read() as connection:
        there = [row.container_id for row in await replicas.find(connection)]
    desired = DesiredState(house.database, Limits())
    running = [await desired.container(one) for one in there]
    assert {one.fixed for one in running} == {
        FixedAddress(address=IPv4Address(f"10.9.0.{n}")) for n in (7, 8)
    }

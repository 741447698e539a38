"""Virtual IPs from the use case to what hosts are told."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from tests import machines
from tests.control.installation import Installation, installation
from tests.control.samples import stand_on_cluster
from tests.control.simulation import app, service
from tests.machines import Machine

from skep.control.telling.balancing import Balancing
from skep.control.telling.serving import serving
from skep.control.telling.virtual_ips import VirtualMap, weights
from skep.flow import RunId, RunState
from skep.model.host import ContainerState, ContainerStatus, Health, NetworkVirtualIps, VirtualIp
from skep.model.ids import (
    AppId,
    ContainerId,
    HostName,
    NetworkId,
    PortId,
    ReplicaId,
    ServiceId,
    TenantId,
)
from skep.model.spec import AppNetwork, NetworkAttachment
from skep.providers.simulated import SimulatedFabric
from skep.store import hosts, replicas, virtual_ips
from skep.store.networks import AttachmentRow
from skep.store.replicas import ReplicaRow
from skep.store.virtual_ips import NamedVirtualIpRow


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2) as made:
        yield made


async def heard(house: Installation) -> dict[HostName, dict[str, VirtualIp]]:
    """The virtual IPs that each host knows, by the names of their services, once all was told."""
    await Balancing(house.database, house.directory).reconcile()
    return {name: told(host.fabric) for name, host in house.hosts.items()}


def told(fabric: object) -> dict[str, VirtualIp]:
    assert isinstance(fabric, SimulatedFabric)
    known = fabric.known_virtual_ips().values()
    return {f"{one.names[0]}.{one.app}": one for each in known for one in each.virtual_ips}


async def addresses(house: Installation, service: str) -> set[IPv4Address]:
    return {
        IPv4Address(one.address)
        for one in await house.control.networks.ports(house.admin)
        if one.replica.startswith(f"shop/{service}-")
    }


async def test_every_service_has_an_address_that_all_hosts_lead_to_its_replicas(house: Installation) -> None:
    aliased = {"default": NetworkAttachment(aliases=("front",))}
    spec = app(web=service(replicas=3, networks=aliased), db=service())

    await house.finish(await house.control.apps.apply(house.admin, spec))

    known = await heard(house)
    assert known[HostName("host-1")] == known[HostName("host-2")]
    web, db = (known[HostName("host-1")][name] for name in ("web.shop", "db.shop"))
    assert {one.address for one in web.backends} == await addresses(house, "web")
    assert {one.weight for one in web.backends} == {100}
    assert (web.names, db.names) == (("web", "front"), ("db",))
    assert len({web.address, db.address} | await addresses(house, "web") | await addresses(house, "db")) == 6


async def test_hosts_know_it_before_replicas_are_plugged(house: Installation) -> None:
    await house.finish(await house.control.apps.apply(house.admin, app(web=service(replicas=2))))

    assert all("web.shop" in told(host.fabric) for host in house.hosts.values())


async def test_an_address_stays_for_the_life_of_its_service(house: Installation) -> None:
    await house.finish(await house.control.apps.apply(house.admin, app(web=service(), db=service())))
    before = (await heard(house))[HostName("host-1")]

    await house.finish(
        await house.control.apps.apply(house.admin, app(web=service("sleep", "9"), db=service(replicas=2)))
    )
    after = (await heard(house))[HostName("host-1")]
    await house.finish(await house.control.apps.apply(house.admin, app(web=service(replicas=0))))
    empty = (await heard(house))[HostName("host-1")]
    await house.finish(await house.control.apps.remove(house.admin, "shop"))

    assert {name: one.address for name, one in after.items()} == {
        name: one.address for name, one in before.items()
    }
    assert len(after["db.shop"].backends) == 2
    assert empty == {"web.shop": msgspec.structs.replace(before["web.shop"], backends=())}
    assert (await heard(house))[HostName("host-1")] == {}


async def test_dnsrr_goes_without_and_may_be_chosen_later(house: Installation) -> None:
    plain = service(endpoint_mode="dnsrr")
    await house.finish(await house.control.apps.apply(house.admin, app(web=plain, db=service())))
    without = set((await heard(house))[HostName("host-1")])

    await house.finish(
        await house.control.apps.apply(house.admin, app(web=service(), db=service(endpoint_mode="dnsrr")))
    )

    assert without == {"db.shop"}
    assert set((await heard(house))[HostName("host-1")]) == {"web.shop"}


async def test_a_release_that_fails_gives_back_what_it_claimed(house: Installation) -> None:
    await house.finish(await house.control.apps.apply(house.admin, app(web=service())))
    before = (await heard(house))[HostName("host-1")]

    failing = await house.control.apps.apply(
        house.admin,
        app(web=service(endpoint_mode="dnsrr"), db=service(), job=service("no-such-program")),
    )
    assert failing.run is not None
    record = await house.flows.wait(RunId(failing.run), 30)

    assert record.state is not RunState.SUCCEEDED
    assert (await heard(house))[HostName("host-1")] == before


async def test_a_service_on_a_full_network_gets_its_address_when_there_is_room(house: Installation) -> None:
    small = {"default": AppNetwork(subnet="10.9.0.0/29")}

    async def apply(*args: str, count: int) -> None:
        spec = msgspec.structs.replace(app(web=service(*args, replicas=count)), networks=small)
        await house.finish(await house.control.apps.apply(house.admin, spec))

    await apply(count=5)
    full = await heard(house)
    await apply(count=4)
    await apply("sleep", "9", count=4)

    assert full == {name: {} for name in house.hosts}
    assert set((await heard(house))[HostName("host-1")]) == {"web.shop"}


async def test_a_shift_of_weights_is_told_by_service(house: Installation) -> None:
    await house.finish(await house.control.apps.apply(house.admin, app(web=service(replicas=2))))
    async with house.database.read() as connection:
        rows = await replicas.find(connection)

    await house.database.write(lambda tx: replicas.set_weights(tx, {rows[0].id: 0, rows[1].id: 7}))
    balancing = Balancing(house.database, house.directory)
    deaf = await balancing.announce(await balancing.networks_of({rows[0].service_id}))

    assert deaf == set()
    for host in house.hosts.values():
        assert sorted(one.weight for one in told(host.fabric)["web.shop"].backends) == [0, 7]


async def test_what_a_host_missed_is_told_again(house: Installation) -> None:
    await house.finish(await house.control.apps.apply(house.admin, app(web=service(replicas=2))))
    before = await heard(house)
    async with house.database.read() as connection:
        network = (await virtual_ips.named(connection))[0].network_id
    fabric = house.hosts[HostName("host-2")].fabric
    await fabric.set_virtual_ips(NetworkVirtualIps(network=network, generation=2**60))

    assert await heard(house) == before


async def test_services_of_two_tenants_are_told_apart_on_a_shared_network(house: Installation) -> None:
    guest = await house.person(
        "gus", house.admin.role, (await house.control.tenants.create(house.admin, "guest")).name
    )
    await house.control.networks.create(house.admin, "back", subnet="10.1.0.0/24")
    await house.control.shares.offer(house.admin, "back", "guest")
    await house.control.shares.accept(guest, "default", "back")
    on = {"n": NetworkAttachment()}

    for caller, network in ((house.admin, "back"), (guest, "default/back")):
        spec = msgspec.structs.replace(
            app(web=service(networks=on)), networks={"n": AppNetwork(external=network)}
        )
        await house.finish(await house.control.apps.apply(caller, spec))

    known = (await heard(house))[HostName("host-1")] or (await heard(house))[HostName("host-2")]
    assert set(known) == {"web.shop", "web.shop.guest"}
    assert all(len(one.backends) == 1 for one in known.values())


async def test_people_are_shown_where_an_address_leads(house: Installation) -> None:
    control, who = house.control, house.admin
    await house.finish(await control.apps.apply(who, app(web=service(replicas=2), db=service())))
    known = await heard(house)
    address = str(known[HostName("host-1")]["web.shop"].address)
    async with house.database.read() as connection:
        rows = {row.name: row for row in await replicas.find(connection)}
    await house.database.write(
        lambda tx: replicas.set_weights(tx, {rows["web-0"].id: 20, rows["web-1"].id: 60})
    )

    untold = await control.networks.trace(who, "shop/db-0", "shop/web")
    await heard(house)
    found = await control.networks.trace(who, "shop/db-0", "shop/web")

    assert (untold.reachable, len(untold.hops), "not yet told" in untold.hops[0].what) == (False, 1, True)
    assert "led to shop/web-0 (25 %), shop/web-1 (75 %)" in found.hops[0].what
    assert address in found.hops[0].what
    assert found.target == "shop/web-0"
    place = next(one for one in await control.networks.map(who) if one.replica == "shop/web")
    assert (place.address, place.leads_to) == (address, ("shop/web-0 (25 %)", "shop/web-1 (75 %)"))
    assert (await control.apps.show(who, "shop")).virtual_ips["web"] == (address,)
    shown = {one.name: one.virtual_ips for one in await control.replicas.list(who)}
    assert shown["web-0"] == shown["web-1"] == (address,)
    detail = await control.networks.show(who, "default")
    assert (address, ("web.shop",)) in {(one.address, one.names) for one in detail.ports}
    assert detail.used == 5


async def test_a_trace_to_a_service_that_nobody_serves_says_so(house: Installation) -> None:
    await house.finish(
        await house.control.apps.apply(house.admin, app(web=service(replicas=0), db=service()))
    )
    await heard(house)

    found = await house.control.networks.trace(house.admin, "shop/db-0", "shop/web")

    assert not found.reachable
    assert "refused at once" in found.hops[-1].what


def replica(
    name: str,
    *,
    weight: int = 100,
    health: Health = Health.NONE,
    runs: bool = True,
    host: str = "host-1",
) -> ReplicaRow:
    status = ContainerStatus(
        id=ContainerId(name),
        replica=ReplicaId(name),
        state=ContainerState.RUNNING if runs else ContainerState.EXITED,
        health=health,
    )
    return ReplicaRow(
        id=ReplicaId(name),
        tenant_id=TenantId("t"),
        app_id=AppId("a"),
        service_id=ServiceId("s"),
        service="web",
        ordinal=0,
        host=HostName(host),
        container_id=ContainerId(name),
        desired="running",
        status=status,
        created=0.0,
        weight=weight,
    )


def test_who_is_leaving_keeps_what_it_has_and_who_is_unwell_or_gone_does_not() -> None:
    rows = [
        replica("well", weight=50, health=Health.HEALTHY),
        replica("unwell", health=Health.UNHEALTHY),
        replica("leaving", weight=0),
        replica("gone", weight=0, runs=False),
        replica("dead", runs=False),
    ]

    assert weights(rows) == {"well": 50, "leaving": 0}
    assert weights(rows[1:2]) == {"unwell": 100}


def mapped(rows: list[ReplicaRow], *, standing: bool) -> str:
    """The digest of what their host is told of them; `standing`: it is a cluster."""
    network, service, host = NetworkId("n"), ServiceId("s"), HostName("host-1")
    address = NamedVirtualIpRow(
        tenant_id=TenantId("t"),
        service_id=service,
        network_id=network,
        address=99,
        service="web",
        app="shop",
        guest="",
    )
    attached = [
        AttachmentRow(
            id=PortId(row.id),
            tenant_id=TenantId("t"),
            network_id=network,
            replica_id=row.id,
            address=number,
            mac="",
            names=(row.id, "web"),
            host=host,
            app="shop",
            service="web",
            ordinal=number,
            status=row.status,
        )
        for number, row in enumerate(rows)
    ]
    clusters = {host} if standing else set[HostName]()
    return VirtualMap(network, 1, [address], attached, {service: rows}, clusters=clusters).digest_from(host)


def test_what_becomes_of_a_replica_is_no_news_to_its_cluster_but_who_is_to_serve_is() -> None:
    well = [replica("web-0"), replica("web-1")]
    unwell = [replica("web-0", health=Health.UNHEALTHY), replica("web-1", runs=False)]
    leaving = [replica("web-0", weight=0), replica("web-1")]

    assert mapped(well, standing=True) == mapped(unwell, standing=True) != mapped(leaving, standing=True)
    assert mapped(well, standing=False) != mapped(unwell, standing=False)


def test_in_a_cluster_everybody_serves_who_is_to_and_on_machines_who_can() -> None:
    unwell, gone = replica("web-0", health=Health.UNHEALTHY), replica("web-1", runs=False)
    leaving, well = replica("web-2", weight=0), replica("web-3", host="host-2")

    there = serving([unwell, gone, leaving, well], clusters={HostName("host-1")})
    here = serving([unwell, gone, leaving, well])

    assert [row.id for row in there] == ["web-0", "web-1", "web-3"]
    assert [row.id for row in here] == ["web-3"]


def test_nobody_is_sent_to_a_silent_host_unless_all_are_on_such() -> None:
    here, there = replica("here"), replica("there", host="host-2")

    assert weights([here, there], {HostName("host-2")}) == {"here": 100, "there": 0}
    assert weights([here, there], {HostName("host-1"), HostName("host-2")}) == {"here": 100, "there": 100}


@pytest.mark.root
async def test_containers_reach_a_service_by_its_address_while_somebody_serves(cloud: Machine) -> None:
    await cloud.apply(machines.app(web=machines.service(replicas=2), client=machines.service("sleep", "1d")))
    (address,) = (await cloud.control.apps.show(cloud.admin, "shop")).virtual_ips["web"]
    asked = "wget -qO- http://web/ 2>&1"

    async def ask() -> str:
        return await cloud.output("shop", "client", "sh", "-c", asked)

    named = await cloud.output("shop", "client", "nslookup", "web")
    each = await cloud.output("shop", "client", "nslookup", "tasks.web")
    served = await ask()
    itself = await cloud.output("shop", "web-0", "sh", "-c", asked)
    traced = await cloud.control.networks.trace(cloud.admin, "shop/client-0", "shop/web")
    await cloud.finish(await cloud.control.apps.stop(cloud.admin, "shop", "web"))
    async with asyncio.timeout(15):
        while "refused" not in await ask():
            await asyncio.sleep(0.1)

    assert address in named
    assert address not in each
    assert (served, itself) == ("hello\n", "hello\n")
    assert traced.reachable, traced.hops
    assert address in await cloud.output("shop", "client", "nslookup", "web")


async def test_a_cluster_hears_of_ports_and_nobody_is_led_in_or_out_of_it(house: Installation) -> None:
    await house.finish(
        await house.control.apps.apply(house.admin, app(web=service(replicas=4, expose=("8080",))))
    )
    before = await heard(house)
    shown = (await house.control.apps.show(house.admin, "shop")).virtual_ips
    await with_a_cluster(house)

    known = await heard(house)

    one, two = (known[HostName(name)]["web.shop"] for name in ("host-1", "host-2"))
    all_of_them = set(before[HostName("host-1")]["web.shop"].backends)
    assert (one.ports, two.ports) == ((), ((8080, "tcp"),))
    assert {*one.backends, *two.backends} == all_of_them
    assert len(one.backends) == len(two.backends) == 2
    assert list(shown) == ["web"]
    # Two of its replicas are on a machine still, and are led to.
    assert (await house.control.apps.show(house.admin, "shop")).virtual_ips == shown


async def test_services_without_replicas_keep_theirs_and_show_none_in_a_cluster(house: Installation) -> None:
    for number in (1, 0):
        await house.finish(await house.control.apps.apply(house.admin, app(web=service(replicas=number))))
    here = (await house.control.apps.show(house.admin, "shop")).virtual_ips
    await with_a_cluster(house)

    there = (await house.control.apps.show(house.admin, "shop")).virtual_ips

    assert list(here) == ["web"]
    assert there == {}


async def with_a_cluster(house: Installation) -> None:
    """The zone does from now on; its cluster is `host-2`."""
    async with house.database.read() as connection:
        zone = (await hosts.every_zone(connection))[0].name
    await stand_on_cluster(house.database, zone, HostName("host-2"))

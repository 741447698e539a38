"""The three laws for the flows that ship: fail anywhere, crash anywhere, repeat anywhere.

On a simulated host, with the documents that the use cases make.  Flows that remove have no way back: whatever
happens to them, asked again they come to their end.
"""

import io
import tarfile
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.control.samples import stand_on_cluster
from tests.control.simulation import ALICE, DATA, HOST, TENANT, Act, Cloud, Laboratory, app, service

from skep.control.flows.catalogue import make_registry
from skep.control.flows.host import Leftovers
from skep.flow import Flow
from skep.flow.testing import Proof, Trial, check_one_way, check_three_laws
from skep.model.host import DiskSpec, NetworkConfig, PortConfig, ServicePublications
from skep.model.ids import Bytes, ContainerId, DiskId, NetworkId, PortId, ReplicaId, ServiceId
from skep.model.spec import AppSubnet, Dependency, Extensions, PublishedPort
from skep.model.topology import Intent
from skep.providers.simulated import SimulatedHost
from skep.store import hosts

REGISTRY = make_registry()
WEB = service(
    ports=(PublishedPort(target=80, published=8080),),
    depends_on={"db": Dependency(condition="service_started")},
)
SHOP = app(web=WEB, db=service(mounts=(DATA,)))
CHANGED = app(db=service("sleep", "1000000", x_skep=Extensions(keep_system_disk=True)))
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A hundred injected failures are no news, and their tracebacks take longer than the trials."""
    with capture_logs():
        yield


async def nothing(_cloud: Cloud) -> None:
    """Only the rows of the tenant are there."""


async def apply(cloud: Cloud) -> None:
    await cloud.apps.apply(ALICE, SHOP)


async def as_a_cluster(cloud: Cloud) -> None:
    await stand_on_cluster(cloud.database, "z", HOST)


async def apply_in_cluster(cloud: Cloud) -> None:
    web = service(depends_on={"db": Dependency(condition="service_started")})
    await cloud.apps.apply(ALICE, app(web=web, db=service(mounts=(DATA,))))


async def apply_change(cloud: Cloud) -> None:
    await cloud.apps.apply(ALICE, CHANGED)


async def remove(cloud: Cloud) -> None:
    await cloud.apps.remove(ALICE, "shop", volumes=True)


async def delete_disk(cloud: Cloud) -> None:
    await cloud.disks.remove(ALICE, "shop_data")


async def resize_disk(cloud: Cloud) -> None:
    await cloud.disks.resize(ALICE, "shop_data", 2 * MIB)


async def delete_network(cloud: Cloud) -> None:
    await cloud.networks.remove(ALICE, "default")


async def widen_network(cloud: Cloud) -> None:
    await cloud.networks.add_subnet(ALICE, "default", AppSubnet(subnet="10.1.0.0/24"))


async def load_image(cloud: Cloud) -> None:
    upload = cloud.images.upload_path(ALICE)
    with tarfile.open(upload, "w") as tar:
        tar.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    await cloud.images.load(ALICE, upload, "hello:1")


async def applied(cloud: Cloud) -> None:
    await cloud.done(await cloud.apps.apply(ALICE, SHOP))


async def half_stopped(cloud: Cloud) -> None:
    await applied(cloud)
    await cloud.done(await cloud.apps.stop(ALICE, "shop", "db"))


async def removed(cloud: Cloud) -> None:
    await applied(cloud)
    await cloud.done(await cloud.apps.remove(ALICE, "shop"))


async def drain(cloud: Cloud) -> None:
    await cloud.database.write(partial(hosts.set_intent, host=HOST, intent=Intent.DRAINING))
    await cloud.draining.move_off(HOST)


async def evacuate(cloud: Cloud) -> None:
    await cloud.database.write(partial(hosts.give_up, host=HOST, fenced=True))
    await cloud.draining.move_off(HOST)


async def three_laws(folder: Path, act: Act, before: Act = nothing, every: int = 1, hosts: int = 1) -> Proof:
    laboratory = Laboratory(folder, REGISTRY, hosts=hosts)
    await laboratory.prepare(act, before)
    return await check_three_laws(
        REGISTRY, laboratory.flow, laboratory.input, laboratory.worlds, folder, every=every
    )


async def one_way(folder: Path, act: Act, before: Act, every: int = 1) -> Proof:
    laboratory = Laboratory(folder, REGISTRY)
    await laboratory.prepare(act, before)
    return await check_one_way(
        REGISTRY, laboratory.flow, laboratory.input, laboratory.worlds, folder, every=every
    )


async def test_applying_a_new_app(tmp_path: Path) -> None:
    proof = await three_laws(tmp_path, apply, every=15)

    assert proof.failures >= 30


async def test_applying_a_new_app_in_a_cluster(tmp_path: Path) -> None:
    """Replicas are placed as a whole there; the simulated host stands for a cluster."""
    laboratory = Laboratory(tmp_path, REGISTRY)
    await laboratory.prepare(apply_in_cluster, as_a_cluster)
    assert isinstance(laboratory.flow, Flow)
    assert [one.use for one in laboratory.flow.plan.steps].count("replica.place") == 2

    proof = await check_three_laws(
        REGISTRY, laboratory.flow, laboratory.input, laboratory.worlds, tmp_path, every=10
    )

    assert proof.failures >= 20


async def test_applying_a_change(tmp_path: Path) -> None:
    await three_laws(tmp_path, apply_change, applied, every=15)


async def test_applying_a_change_to_what_is_stopped(tmp_path: Path) -> None:
    async def stopped(cloud: Cloud) -> None:
        await cloud.done(await cloud.apps.apply(ALICE, app(job=service())))
        await cloud.done(await cloud.apps.stop(ALICE, "shop"))

    async def change(cloud: Cloud) -> None:
        published = (PublishedPort(target=80, published=8081),)
        await cloud.apps.apply(ALICE, app(job=service("sleep", "1000000", ports=published)))

    await three_laws(tmp_path, change, stopped, every=10)


@pytest.mark.parametrize("verb", ["stop", "start", "restart"])
async def test_switching_an_app_of_which_a_part_is_stopped(tmp_path: Path, verb: str) -> None:
    async def switch(cloud: Cloud) -> None:
        await getattr(cloud.apps, verb)(ALICE, "shop")

    await three_laws(tmp_path, switch, half_stopped, every=8)


async def test_applying_an_app_over_two_hosts(tmp_path: Path) -> None:
    async def spread(cloud: Cloud) -> None:
        published = (PublishedPort(target=80, published=8080),)
        await cloud.apps.apply(ALICE, app(web=service(replicas=2, ports=published)))

    await three_laws(tmp_path, spread, every=8, hosts=2)


async def test_draining_a_host(tmp_path: Path) -> None:
    async def placed(cloud: Cloud) -> None:
        published = (PublishedPort(target=80, published=8080),)
        await cloud.done(await cloud.apps.apply(ALICE, app(web=service(replicas=3, ports=published))))

    proof = await three_laws(tmp_path, drain, placed, every=6, hosts=2)

    assert proof.failures >= 3


async def test_evacuating_a_host_that_is_off(tmp_path: Path) -> None:
    async def placed(cloud: Cloud) -> None:
        published = (PublishedPort(target=80, published=8080),)
        await cloud.done(await cloud.apps.apply(ALICE, app(web=service(replicas=3, ports=published))))

    proof = await three_laws(tmp_path, evacuate, placed, every=6, hosts=2)

    assert proof.failures >= 3


async def test_draining_a_host_of_what_is_stopped(tmp_path: Path) -> None:
    async def stopped(cloud: Cloud) -> None:
        await cloud.done(await cloud.apps.apply(ALICE, app(job=service())))
        await cloud.done(await cloud.apps.stop(ALICE, "shop"))

    await three_laws(tmp_path, drain, stopped, every=3, hosts=2)


async def test_resizing_a_disk(tmp_path: Path) -> None:
    await three_laws(tmp_path, resize_disk, removed, every=2)


async def test_removing_an_app(tmp_path: Path) -> None:
    await one_way(tmp_path, remove, applied, every=10)


async def test_deleting_a_disk(tmp_path: Path) -> None:
    await one_way(tmp_path, delete_disk, removed, every=2)


async def test_loading_an_image(tmp_path: Path) -> None:
    await three_laws(tmp_path, load_image, every=3)


async def litter(host: SimulatedHost) -> None:
    """One of each kind that no row asks for."""
    net = NetworkConfig(
        id=NetworkId("n"),
        tenant=TENANT,
        name="old",
        subnet=IPv4Network("10.1.0.0/24"),
        gateway=IPv4Address("10.1.0.1"),
        index=7,
    )
    nic = PortConfig(
        id=PortId("p"),
        network=net.id,
        replica=ReplicaId("r"),
        address=IPv4Address("10.1.0.5"),
        mac="02:00:00:00:00:01",
        app="old",
    )
    await host.fabric.ensure_network(net)
    await host.fabric.plug(nic)
    await host.disks.create(DiskSpec(id=DiskId("d"), size=Bytes(MIB), kind="system"))
    await host.fabric.publish(ServicePublications(service=ServiceId("s"), publications=()))


async def test_collecting_what_nobody_needs(tmp_path: Path) -> None:
    left = Leftovers(
        services=[ServiceId("s")],
        containers=[ContainerId("c")],
        ports=[PortId("p")],
        sandboxes=[ReplicaId("r")],
        system_disks=[DiskId("d")],
        networks=[NetworkId("n")],
    )
    values = {"host": HOST, "leftovers": left}
    laboratory = Laboratory(tmp_path, REGISTRY, litter)
    await laboratory.prepare(nothing)

    await check_one_way(REGISTRY, "host.collect", values, laboratory.worlds, tmp_path)

    async with laboratory.worlds() as world:
        await Trial(REGISTRY, "host.collect", values, world, tmp_path / "once.db").run()
        fabric = world.host.fabric
        assert not any([await fabric.networks(), await fabric.sandboxes(), await fabric.published()])
        assert not await world.host.disks.list()


async def test_deleting_a_network(tmp_path: Path) -> None:
    await one_way(tmp_path, delete_network, removed, every=3)


async def test_a_subnet_that_joins_a_network(tmp_path: Path) -> None:
    await one_way(tmp_path, widen_network, applied)

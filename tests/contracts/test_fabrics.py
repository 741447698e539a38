"""What control may expect of every fabric."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.cluster.kubernetes.cluster import Cluster
from tests.contracts.remote import Parts, elsewhere
from tests.providers.kubernetes.zone import open_zone, other_service
from tests.providers.network.conftest import HOST, World, dual, dual_port, network, port, publications

from skep.control.ports import Fabric, HostFabric
from skep.model.errors import Conflict, InvalidInput, NotFound, Stale, Unsupported
from skep.model.groups import GroupRule
from skep.model.host import (
    Backend,
    GroupPolicy,
    GuardedPort,
    HostSubnet,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    RemotePort,
    VirtualIp,
)
from skep.model.ids import GroupId, NetworkId, PortId, ReplicaId, ServiceId, new_id, short
from skep.model.needs import NODE_PORTS
from skep.providers.local.network import LocalFabric, Underlay
from skep.providers.simulated import SimulatedFabric

PEER = IPv4Address("192.0.2.9")
TAKEN = 18_999
"""The TCP port on which a process of the host listens."""


class FabricContract:
    """Wherever the networks are."""

    ports = (18_080, 18_081)
    """Two that may be published."""
    taken = TAKEN

    async def test_a_network_that_is_ensured_twice_is_there_once(self, fabric: Fabric) -> None:
        net = network()

        await fabric.ensure_network(net)
        await fabric.ensure_network(net)

        assert await fabric.networks() == {net.id}

    async def test_the_first_port_makes_the_sandbox(self, fabric: Fabric) -> None:
        net = network()
        nic = port(net, 5)
        await fabric.ensure_network(net)

        await fabric.plug(nic)
        await fabric.plug(nic)

        assert await fabric.ports() == {nic.id}
        assert await fabric.sandboxes() == {nic.replica}

    async def test_a_port_needs_its_network(self, fabric: Fabric) -> None:
        with pytest.raises(NotFound):
            await fabric.plug(port(network(), 5))

    async def test_an_address_belongs_to_one_port(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(net)
        await fabric.plug(port(net, 5))

        with pytest.raises(Conflict):
            await fabric.plug(port(net, 5))
        with pytest.raises(InvalidInput):
            await fabric.plug(port(net, 1))

    async def test_a_network_grows_by_a_subnet_while_it_is_in_use(self, fabric: Fabric) -> None:
        net = network()
        old = port(net, 5)
        await fabric.ensure_network(net)
        await fabric.plug(old)
        more = HostSubnet(cidr=IPv4Network("10.7.0.0/24"), gateway=IPv4Address("10.7.0.1"))
        wide = msgspec.structs.replace(net, more=(more,))
        new = msgspec.structs.replace(port(net, 6), address=more.cidr[6])
        with pytest.raises(InvalidInput):
            await fabric.plug(new)

        await fabric.ensure_network(wide)
        await fabric.plug(new)

        assert await fabric.networks() == {net.id}
        assert await fabric.ports() == {old.id, new.id}
        with pytest.raises(InvalidInput):
            await fabric.plug(msgspec.structs.replace(port(net, 7), address=more.gateway))

    async def test_a_port_has_an_address_of_each_family(self, fabric: Fabric) -> None:
        net = network()
        nic = dual_port(dual(net), 5)
        await fabric.ensure_network(net)
        with pytest.raises(InvalidInput):
            await fabric.plug(nic)

        await fabric.ensure_network(dual(net))
        await fabric.plug(nic)
        await fabric.plug(port(net, 6))

        assert len(await fabric.ports()) == 2
        assert await fabric.networks() == {net.id}
        twin = msgspec.structs.replace(dual_port(dual(net), 7), address6=nic.address6)
        with pytest.raises(Conflict):
            await fabric.plug(twin)
        with pytest.raises(InvalidInput):
            await fabric.plug(dual_port(dual(net), 1))

    async def test_an_unplugged_port_leaves_the_sandbox_with_its_others(self, fabric: Fabric) -> None:
        one, two = network(index=1), network(index=2, subnet="10.2.0.0/24")
        first = port(one, 5)
        second = msgspec.structs.replace(
            port(two, 5, interface="eth1"), replica=first.replica, default_route=False
        )
        for net, nic in ((one, first), (two, second)):
            await fabric.ensure_network(net)
            await fabric.plug(nic)

        await fabric.unplug(first.id)

        assert await fabric.ports() == {second.id}
        assert await fabric.sandboxes() == {first.replica}

    async def test_a_removed_sandbox_takes_its_ports_along(self, fabric: Fabric) -> None:
        net = network()
        nic = port(net, 5)
        await fabric.ensure_network(net)
        await fabric.plug(nic)

        await fabric.remove_sandbox(nic.replica)

        assert await fabric.ports() == set()
        assert await fabric.sandboxes() == set()
        await fabric.plug(msgspec.structs.replace(nic, id=PortId(new_id()), replica=ReplicaId(new_id())))

    async def test_publishing_replaces_what_the_service_published(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(net)
        service = ServiceId(new_id())
        before = publications(net, self.ports[0], 80, (net.subnet[5],), service=service)
        after = publications(net, self.ports[1], 80, (net.subnet[6],), service=service)

        await fabric.publish(before)
        await fabric.publish(after)

        assert await fabric.published() == {service: after}
        await fabric.publish(publications(net, self.ports[0], 80, (net.subnet[5],)))

    async def test_a_port_is_published_by_one_service_only(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(net)
        first = publications(net, self.ports[0], 80, (net.subnet[5],))
        await fabric.publish(first)

        for taken in (self.ports[0], self.taken):
            with pytest.raises(Conflict):
                await fabric.publish(publications(net, taken, 80, (net.subnet[6],)))

        assert await fabric.published() == {first.service: first}

    async def test_an_internal_network_publishes_nothing(self, fabric: Fabric) -> None:
        net = network(internal=True)
        await fabric.ensure_network(net)

        with pytest.raises(InvalidInput):
            await fabric.publish(publications(net, self.ports[0], 80, (net.subnet[5],)))

    async def test_a_deleted_network_leaves_nothing_that_led_to_it(self, fabric: Fabric) -> None:
        net = network()
        nic = port(net, 5)
        await fabric.ensure_network(net)
        await fabric.plug(nic)
        items = publications(net, self.ports[0], 80, (net.subnet[5],))
        await fabric.publish(items)

        await fabric.delete_network(net.id)

        assert (await fabric.networks(), await fabric.ports()) == (set(), set())
        left = (await fabric.published()).get(items.service)
        assert left is None or left.publications == ()

    async def test_guards_have_a_generation_and_an_older_one_is_refused(self, fabric: Fabric) -> None:
        net = network()
        with pytest.raises(NotFound):
            await fabric.set_guards(NetworkGuards(network=net.id, generation=1))
        await fabric.ensure_network(net)
        web = GroupPolicy(id=GroupId("web"), rules=(GroupRule(protocol="tcp", ports="80"),))
        guarded = GuardedPort(address=net.subnet[9], groups=(web.id,))
        known = NetworkGuards(network=net.id, generation=2, ports=(guarded,), groups=(web,))
        await fabric.set_guards(known)
        await fabric.set_guards(known)

        with pytest.raises(Stale):
            await fabric.set_guards(NetworkGuards(network=net.id, generation=1))
        with pytest.raises(InvalidInput):
            await fabric.set_guards(NetworkGuards(network=net.id, generation=3, ports=(guarded,)))

        assert await fabric.guards() == {net.id: PeersInForce(generation=2, digest=known.digest)}
        await fabric.set_guards(nothing := NetworkGuards(network=net.id, generation=4))
        assert await fabric.guards() == {net.id: PeersInForce(generation=4, digest=nothing.digest)}
        assert await fabric.networks() == {net.id}
        await fabric.delete_network(net.id)
        assert await fabric.guards() == {}

    async def test_virtual_ips_have_a_generation_and_an_older_one_is_refused(self, fabric: Fabric) -> None:
        net = network()
        web = VirtualIp(
            service=ServiceId("web"),
            address=net.subnet[9],
            app="shop",
            names=("web",),
            backends=(Backend(address=net.subnet[5], weight=50),),
        )
        known = NetworkVirtualIps(network=net.id, generation=2, virtual_ips=(web,))
        with pytest.raises(NotFound):
            await fabric.set_virtual_ips(known)
        await fabric.ensure_network(net)
        await fabric.plug(nic := port(net, 6))
        await fabric.set_virtual_ips(known)
        await fabric.set_virtual_ips(known)

        with pytest.raises(Stale):
            await fabric.set_virtual_ips(NetworkVirtualIps(network=net.id, generation=1))

        assert await fabric.virtual_ips() == {net.id: PeersInForce(generation=2, digest=known.digest)}
        await fabric.set_virtual_ips(nothing := NetworkVirtualIps(network=net.id, generation=3))
        assert await fabric.virtual_ips() == {net.id: PeersInForce(generation=3, digest=nothing.digest)}
        assert await fabric.ports() == {nic.id}
        await fabric.delete_network(net.id)
        assert await fabric.virtual_ips() == {}

    async def test_a_virtual_ip_is_an_address_of_its_network_and_of_nobody_else(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(net)

        for addresses in ((net.gateway,), (IPv4Address("192.0.2.9"),), (net.subnet[9], net.subnet[9])):
            several = tuple(
                VirtualIp(service=ServiceId(new_id()), address=one, app="shop", names=("web",))
                for one in addresses
            )
            with pytest.raises(InvalidInput):
                await fabric.set_virtual_ips(
                    NetworkVirtualIps(network=net.id, generation=1, virtual_ips=several)
                )

        assert await fabric.virtual_ips() == {}

    async def test_removing_what_is_absent_is_success(self, fabric: Fabric) -> None:
        await fabric.delete_network(NetworkId(new_id()))
        await fabric.unplug(PortId(new_id()))
        await fabric.remove_sandbox(ReplicaId(new_id()))
        await fabric.unpublish(ServiceId(new_id()))
        await fabric.set_resolvable(ReplicaId(new_id()), True)

    async def test_a_network_without_peers_is_told_so(self, fabric: Fabric) -> None:
        net = network()
        with pytest.raises(NotFound):
            await fabric.set_peers(NetworkPeers(network=net.id, generation=1))
        await fabric.ensure_network(net)

        await fabric.set_peers(nobody := NetworkPeers(network=net.id, generation=2))

        with pytest.raises(Stale):
            await fabric.set_peers(NetworkPeers(network=net.id, generation=1))
        assert await fabric.peers() == {net.id: PeersInForce(generation=2, digest=nobody.digest)}
        await fabric.delete_network(net.id)
        assert await fabric.peers() == {}


class PeeredFabricContract(FabricContract):
    """Of hosts whose networks reach other hosts, by links that are numbered on each."""

    async def test_networks_cannot_share_an_index(self, fabric: Fabric) -> None:
        await fabric.ensure_network(network(index=1))

        with pytest.raises(Conflict):
            await fabric.ensure_network(network(index=1, subnet="10.2.0.0/24"))

    async def test_peers_have_a_generation_and_an_older_one_is_refused(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(net)
        there = RemotePort(
            id=PortId(new_id()),
            replica=ReplicaId(new_id()),
            address=net.subnet[9],
            mac="02:aa:00:00:01:09",
            underlay=PEER,
        )
        known = NetworkPeers(network=net.id, generation=2, hosts=(PEER,), ports=(there,))
        await fabric.set_peers(known)
        await fabric.set_peers(known)

        with pytest.raises(Stale):
            await fabric.set_peers(NetworkPeers(network=net.id, generation=1))

        assert await fabric.peers() == {net.id: PeersInForce(generation=2, digest=known.digest)}
        await fabric.set_peers(nobody := NetworkPeers(network=net.id, generation=3))
        assert await fabric.peers() == {net.id: PeersInForce(generation=3, digest=nobody.digest)}
        assert await fabric.networks() == {net.id}

    async def test_peers_need_their_network_and_addresses_of_their_own(self, fabric: Fabric) -> None:
        net = network()
        with pytest.raises(NotFound):
            await fabric.set_peers(NetworkPeers(network=net.id, generation=1))
        await fabric.ensure_network(net)
        as_gateway = RemotePort(
            id=PortId(new_id()),
            replica=ReplicaId(new_id()),
            address=net.gateway,
            mac="02:aa:00:00:01:09",
            underlay=PEER,
        )

        with pytest.raises(InvalidInput):
            await fabric.set_peers(
                NetworkPeers(network=net.id, generation=1, hosts=(PEER,), ports=(as_gateway,))
            )

        assert await fabric.peers() == {}

    async def test_an_address_that_peers_claim_can_be_plugged_here(self, fabric: Fabric) -> None:
        net = network()
        nic = port(net, 9)
        await fabric.ensure_network(net)
        there = RemotePort(
            id=PortId(new_id()),
            replica=ReplicaId(new_id()),
            address=nic.address,
            mac=nic.mac,
            underlay=PEER,
        )
        await fabric.set_peers(NetworkPeers(network=net.id, generation=1, hosts=(PEER,), ports=(there,)))

        await fabric.plug(nic)

        assert await fabric.ports() == {nic.id}
        assert await fabric.networks() == {net.id}
        await fabric.delete_network(net.id)
        assert await fabric.peers() == {}

    async def test_a_peer_has_not_the_gateways_address_of_the_other_family(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(dual(net))
        as_gateway = RemotePort(
            id=PortId(new_id()),
            replica=ReplicaId(new_id()),
            address=net.subnet[9],
            mac="02:aa:00:00:01:09",
            underlay=PEER,
            address6=IPv6Address("fd00:1::1"),
        )
        with pytest.raises(InvalidInput):
            await fabric.set_peers(
                NetworkPeers(network=net.id, generation=1, hosts=(PEER,), ports=(as_gateway,))
            )


class HostFabricContract(PeeredFabricContract):
    """What the engine of the same host may expect beside."""

    async def test_a_sandbox_is_named_after_its_replica(self, fabric: HostFabric) -> None:
        replica = ReplicaId(new_id())

        assert fabric.sandbox(replica).name.endswith(short(replica))

    async def test_a_port_is_the_services_whose_rows_were_read_last(self, fabric: HostFabric) -> None:
        net = network()
        await fabric.ensure_network(net)
        gone, new = (publications(net, self.ports[0], 80, (net.subnet[number],)) for number in (5, 6))
        both = gone.publications + publications(net, self.ports[1], 80, (net.subnet[5],)).publications
        await fabric.publish(replace(gone, publications=both, generation=2))

        await fabric.publish(younger := replace(new, generation=3))

        for outdated in (replace(gone, generation=2), replace(new, generation=1)):
            with pytest.raises(Stale):
                await fabric.publish(outdated)
        left = replace(gone, publications=both[1:], generation=2)
        assert await fabric.published() == {gone.service: left, new.service: younger}
        await fabric.publish(replace(new, generation=0))

    async def test_what_is_published_while_its_network_is_deleted_is_not_published_after(
        self, fabric: HostFabric
    ) -> None:
        for earlier in (True, False):
            net = network()
            await fabric.ensure_network(net)
            publishing = fabric.publish(publications(net, self.ports[0], 80, (net.subnet[5],)))
            deleting = fabric.delete_network(net.id)

            both = (publishing, deleting) if earlier else (deleting, publishing)
            await asyncio.gather(*both, return_exceptions=True)

            other = network(2)
            await fabric.ensure_network(other)
            await fabric.publish(free := publications(other, self.ports[0], 80, (other.subnet[5],)))
            await fabric.unpublish(free.service)
            await fabric.delete_network(other.id)


class TestSimulatedFabric(HostFabricContract):
    @pytest.fixture
    def fabric(self) -> SimulatedFabric:
        return SimulatedFabric(listening=[("tcp", TAKEN)])

    async def test_names_resolve_while_the_replica_runs(self, fabric: SimulatedFabric) -> None:
        net = network()
        nic = port(net, 5, names=("web-0", "web"))
        await fabric.ensure_network(net)
        await fabric.plug(nic)
        await fabric.set_resolvable(nic.replica, True)
        up = fabric.resolve(net.id, "web")

        await fabric.set_resolvable(nic.replica, False)

        assert (up, fabric.resolve(net.id, "web")) == ({nic.address}, set())

    async def test_names_of_a_service_resolve_to_its_virtual_ip(self, fabric: SimulatedFabric) -> None:
        net = network()
        nic = port(net, 5, names=("web-0", "web"))
        await fabric.ensure_network(net)
        await fabric.plug(nic)
        await fabric.set_resolvable(nic.replica, True)

        web = VirtualIp(service=ServiceId("web"), address=net.subnet[9], app="shop", names=("web",))
        await fabric.set_virtual_ips(NetworkVirtualIps(network=net.id, generation=1, virtual_ips=(web,)))

        names = ("web", "tasks.web", "web-0")
        assert [fabric.resolve(net.id, name) for name in names] == [
            {web.address},
            {nic.address},
            {nic.address},
        ]


@pytest.mark.root
class TestLocalFabric(HostFabricContract):
    @pytest.fixture
    async def fabric(self, world: World) -> AsyncIterator[LocalFabric]:
        with await world.socket(world.host, socket.SOCK_STREAM, ("0.0.0.0", TAKEN)) as listener:
            listener.listen()
            async with world.open(Underlay(IPv4Address(HOST))) as opened:
                yield opened


@pytest.mark.root
class TestRemoteFabric(PeeredFabricContract):
    @pytest.fixture
    async def fabric(self, world: World, tmp_path: Path) -> AsyncIterator[Fabric]:
        with await world.socket(world.host, socket.SOCK_STREAM, ("0.0.0.0", TAKEN)) as listener:
            listener.listen()
            async with (
                world.open(Underlay(IPv4Address(HOST))) as opened,
                elsewhere(Parts(fabric=opened), tmp_path) as host,
            ):
                yield host.fabric


@pytest.mark.root
@pytest.mark.kubernetes
class TestClusterFabric(FabricContract):
    @pytest.fixture
    async def fabric(self, kubernetes: Cluster) -> AsyncIterator[Fabric]:
        one, two, self.taken = random.sample(NODE_PORTS, 3)
        self.ports = (one, two)
        with other_service(kubernetes, self.taken):
            async with open_zone(kubernetes) as zone:
                yield zone.fabric

    async def test_what_a_cluster_cannot_is_refused_by_name(self, fabric: Fabric) -> None:
        net = network()
        await fabric.ensure_network(net)

        with pytest.raises(Unsupported, match="30000-32767"):
            await fabric.publish(publications(net, 8080, 80, (net.subnet[5],)))
        with pytest.raises(Unsupported, match="on all nodes"):
            await fabric.publish(publications(net, self.ports[0], 80, (), host_ip="127.0.0.1"))
        with pytest.raises(Unsupported, match="outside of the cluster"):
            await fabric.set_peers(NetworkPeers(network=net.id, generation=1, hosts=(PEER,)))

        assert (await fabric.published(), await fabric.peers()) == ({}, {})

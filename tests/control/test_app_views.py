"""How people see what runs on a host of skep's own, elsewhere, or in a cluster."""

from ipaddress import IPv4Address

import msgspec

from skep.control.apps import app_views
from skep.model.host import ContainerState, ContainerStatus
from skep.model.ids import AppId, ContainerId, HostName, NetworkId, PortId, ReplicaId, ServiceId, TenantId
from skep.model.names import AppName
from skep.model.views.apps import ReplicaView
from skep.store.apps import AppRow
from skep.store.networks import PortRow
from skep.store.replicas import ReplicaRow

STATUS = ContainerStatus(id=ContainerId("c"), replica=ReplicaId("r"), state=ContainerState.RUNNING)
IN_CLUSTER = msgspec.structs.replace(STATUS, address="10.64.1.7", node="198.51.100.3")
SHOP = AppRow(id=AppId("a"), tenant_id=TenantId("t"), name=AppName("shop"), created=0.0, updated=0.0)
PORT = PortRow(
    id=PortId("p"),
    tenant_id=TenantId("t"),
    network_id=NetworkId("n"),
    replica_id=ReplicaId("r"),
    address=int(IPv4Address("10.1.0.9")),
    mac="02:00:00:00:00:09",
    names=("web-0", "web"),
    position=0,
)
MEMBER = ReplicaRow(
    id=ReplicaId("r"),
    tenant_id=TenantId("t"),
    app_id=AppId("a"),
    service_id=ServiceId("s"),
    service="web",
    ordinal=0,
    host=HostName("k8s"),
    container_id=ContainerId("c"),
    desired="running",
    status=STATUS,
    created=0.0,
)


def test_in_a_cluster_a_replica_has_the_address_that_the_cluster_gave_it() -> None:
    here = view(STATUS, in_cluster=False)
    there = view(IN_CLUSTER, in_cluster=True)
    not_yet = view(STATUS, in_cluster=True)

    assert (here.addresses, here.virtual_ips) == (("10.1.0.9",), ("10.1.0.200",))
    assert (there.addresses, there.virtual_ips, there.mac) == (("10.64.1.7",), (), "")
    assert not_yet.addresses == ()


def test_ports_of_an_app_in_a_cluster_are_at_its_nodes_and_not_where_others_are() -> None:
    member = msgspec.structs.replace(MEMBER, status=IN_CLUSTER)

    found = [app_views.published_at("web", [member], {}, host) for host in ("localhost", "skep.example")]

    assert found == ["198.51.100.3", "198.51.100.3"]


def test_ports_elsewhere_are_where_the_operator_says_or_at_a_host_that_runs_the_service() -> None:
    reached = {HostName("k8s"): "10.0.0.2"}

    assert app_views.published_at("web", [MEMBER], reached, "localhost") == "10.0.0.2"
    assert app_views.published_at("db", [MEMBER], reached, "localhost") == "localhost"
    assert app_views.published_at("web", [MEMBER], reached, "skep.example") == "skep.example"


def view(status: ContainerStatus, *, in_cluster: bool) -> ReplicaView:
    member = msgspec.structs.replace(MEMBER, status=status)
    return app_views.replica(SHOP, member, [PORT], [], ("10.1.0.200",), None, {}, in_cluster=in_cluster)

import pytest
from tests.providers.kubernetes.pods.specs import NEVER, spec

from skep.model.host import ContainerMount
from skep.model.ids import ContainerId, DiskId, NetworkId, PortId, ReplicaId
from skep.model.spec import RestartPolicy
from skep.providers.kubernetes.pods import naming
from skep.providers.kubernetes.pods.naming import CarrierKind, Position

OTHER = {
    "id": ContainerId("01hc0000000000000002"),
    "replica": ReplicaId("01hr0000000000000002"),
    "name": "shop/web-1",
    "hostname": "web-1",
    "system_disk": DiskId("01hd0000000000000009"),
    "ports": (PortId("01hp0000000000000002"),),
}
DISK = (ContainerMount(target="/data", disk=DiskId("01hd0000000000000002")),)


def test_replicas_that_differ_in_their_own_things_only_share_a_deployment() -> None:
    assert naming.kind_of(spec()) is CarrierKind.DEPLOYMENT
    assert naming.carrier_name(spec()) == naming.carrier_name(spec(**OTHER))
    assert naming.carrier_name(spec()).startswith("shop-web-")


def test_another_specification_is_another_deployment() -> None:
    names = {naming.carrier_name(one) for one in (spec(), spec(args=("x",)), spec(hostname="fixed"))}

    assert len(names) == 3


def test_on_other_networks_it_is_another_deployment_but_what_runs_is_as_it_was_asked_for() -> None:
    bare, on_one = spec(), spec(networks={NetworkId("n1"): True})

    names = {naming.carrier_name(one) for one in (bare, on_one, spec(networks={NetworkId("n1"): False}))}

    assert len(names) == 3
    assert naming.spec_digest(bare) == naming.spec_digest(on_one)
    assert naming.spec_digest(bare) != naming.spec_digest(spec(ports=OTHER["ports"]))


def test_a_replica_with_a_disk_keeps_the_name_of_its_set_through_every_change() -> None:
    before, after = spec(mounts=DISK), spec(mounts=DISK, args=("x",), id=OTHER["id"])

    assert naming.kind_of(before) is CarrierKind.STATEFUL_SET
    assert naming.carrier_name(before) == naming.carrier_name(after)
    assert naming.carrier_name(before) != naming.carrier_name(spec(**OTHER | {"mounts": DISK}))


@pytest.mark.parametrize(
    "restart",
    [NEVER, RestartPolicy(condition="on-failure"), RestartPolicy(condition="always", max_attempts=2)],
)
def test_what_kubernetes_would_start_again_in_its_own_way_is_a_pod_of_its_own(restart: RestartPolicy) -> None:
    one = spec(restart=restart, mounts=DISK)

    assert naming.kind_of(one) is CarrierKind.POD
    assert naming.carrier_name(one) != naming.carrier_name(spec(restart=restart, id=OTHER["id"]))


@pytest.mark.parametrize("name", ["shop", "a-b-1"])
def test_names_that_kubernetes_takes_are_left(name: str) -> None:
    assert naming.plain(name) == name


@pytest.mark.parametrize("name", ["Shop_A", "x" * 60, "9lives", "a.b", "--"])
def test_other_names_are_made_fit_and_do_not_become_anothers(name: str) -> None:
    made = naming.plain(name)

    assert naming.is_hostname(made)
    assert made[0].isalpha()
    assert len(made) <= 40
    assert made not in {naming.plain(name.lower() + "x"), naming.plain("shop-a"), naming.plain("x" * 40)}


def test_a_position_is_read_from_what_people_see() -> None:
    assert Position.of("shop/my-web-12") == Position("shop", "my-web", "my-web-12")


def test_labels_take_what_they_may_hold() -> None:
    assert naming.label_value("Web_1.x") == "Web_1.x"
    assert naming.label_value("-web").startswith("web-")

"""What of a service's placement is left to the nodes of its cluster."""

from tests.control.simulation import service

from skep.control.plans.specifications import node_placement
from skep.model.host import NodePlacement
from skep.model.placement import attributes, parse_constraint
from skep.model.spec import Extensions, Placement

CLUSTER = attributes("k8s", "k8s", "r", "k8s", {"tier": "gold"})


def test_a_machine_is_told_nothing() -> None:
    """All of it was decided when it was chosen."""
    asked = service(placement=Placement(constraints=("node.labels.disk == ssd",), max_per_host=1))

    assert node_placement(asked, None) is None


def test_who_asks_for_nothing_is_told_nothing() -> None:
    assert node_placement(service(), CLUSTER) is None


def test_constraints_on_nodes_are_passed_on_and_those_on_the_cluster_are_not() -> None:
    nodes = ("node.labels.disk == ssd", "node.hostname != node-1")
    cluster = ("node.zone == k8s", "node.labels.tier == gold", "node.role == worker", "node.hostname == k8s")

    found = node_placement(service(placement=Placement(constraints=(*nodes, *cluster))), CLUSTER)

    assert found == NodePlacement(constraints=tuple(map(parse_constraint, nodes)))


def test_what_all_nodes_have_alike_spreads_nothing() -> None:
    spread = ("node.labels.tier", "node.pool", "node.zone", "node.labels.rack", "node.role")

    found = node_placement(service(placement=Placement(spread=spread)), CLUSTER)

    assert found == NodePlacement(spread=("node.zone", "node.labels.rack"))


def test_one_on_a_node_and_packing_are_passed_on() -> None:
    asked = service(placement=Placement(max_per_host=1), x_skep=Extensions(pack=True))

    assert node_placement(asked, CLUSTER) == NodePlacement(alone=True, pack=True)

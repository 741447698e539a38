"""What `deploy.placement` and `x-skep` become: the nodes a pod may run on, and where its siblings are."""

from typing import Any

import msgspec
import pytest
from tests.providers.kubernetes.pods.specs import ALWAYS, NEVER, spec

from skep.model.host import ContainerMount, NodePlacement
from skep.model.ids import DiskId
from skep.model.placement import Priority, parse_constraint
from skep.providers.kubernetes.manifests import Manifest
from skep.providers.kubernetes.pods import naming
from skep.providers.kubernetes.pods.placing import placed
from skep.providers.kubernetes.pods.priorities import classes, names
from skep.providers.kubernetes.pods.templates import Given, template

ZONE, HOSTNAME = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
SIBLINGS = {"matchLabels": {"skep.dev/app": "shop", "skep.dev/service": "web"}}
DISK = (ContainerMount(target="/d", disk=DiskId("d")),)


def constrained(*texts: str) -> Manifest:
    asked = NodePlacement(constraints=tuple(map(parse_constraint, texts)))
    affinity: Manifest = placed(spec(placement=asked), ())["affinity"]
    (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    found: Manifest = term
    return found


def keys(asked: NodePlacement | None, *labels: str) -> list[str]:
    return [one["topologyKey"] for one in placed(spec(placement=asked), labels)["topologySpreadConstraints"]]


@pytest.mark.parametrize(
    ("text", "key", "operator", "value"),
    [
        ("node.labels.disk == ssd", "disk", "In", "ssd"),
        ("node.labels.disk != ssd", "disk", "NotIn", "ssd"),
        (f"node.labels.{ZONE} == eu-1a", ZONE, "In", "eu-1a"),
        ("node.hostname == node-1", HOSTNAME, "In", "node-1"),
        ("node.platform.os == linux", "kubernetes.io/os", "In", "linux"),
        ("node.platform.arch == x86_64", "kubernetes.io/arch", "In", "amd64"),
        ("node.platform.arch != arm64", "kubernetes.io/arch", "NotIn", "arm64"),
    ],
)
def test_a_constraint_is_a_label_that_nodes_must_have(text: str, key: str, operator: str, value: str) -> None:
    assert constrained(text) == {"matchExpressions": [{"key": key, "operator": operator, "values": [value]}]}


def test_an_id_is_the_name_of_a_node() -> None:
    assert constrained("node.id != a") == {
        "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]
    }


def test_all_constraints_hold_at_once() -> None:
    term = constrained("node.labels.disk == ssd", "node.labels.rack != 7", "node.id != a")

    assert [one["key"] for one in term["matchExpressions"]] == ["disk", "rack"]
    assert len(term["matchFields"]) == 1


def test_replicas_are_spread_over_zones_and_nodes_unasked() -> None:
    (zones, nodes) = placed(spec(), [ZONE])["topologySpreadConstraints"]

    assert "affinity" not in placed(spec(), [ZONE])
    assert nodes == {
        "maxSkew": 1,
        "topologyKey": HOSTNAME,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": SIBLINGS,
    }
    assert zones == nodes | {"topologyKey": ZONE}


def test_what_no_node_is_labelled_with_tells_none_apart() -> None:
    """Nodes that lack a label which pods are spread over would all be alike, hostname or not."""
    racks = NodePlacement(spread=("node.labels.rack",))

    assert keys(None) == [HOSTNAME]
    assert keys(racks, ZONE) == [HOSTNAME]
    assert keys(racks, ZONE, "rack") == ["rack", HOSTNAME]
    assert keys(NodePlacement(spread=("node.region", "node.hostname")), ZONE) == [HOSTNAME]


def test_a_service_with_disks_and_what_ends_are_spread_likewise() -> None:
    for one in (spec(mounts=DISK), spec(restart=NEVER), spec(restart=ALWAYS)):
        made = template(one, Given(image="i"))["spec"]
        assert [each["topologyKey"] for each in made["topologySpreadConstraints"]] == [HOSTNAME]
        assert made["topologySpreadConstraints"][0]["labelSelector"] == SIBLINGS


def test_every_revision_counts_but_no_other_service() -> None:
    before, after = spec(), spec(args=("x",), name="shop/web-7")
    other = spec(name="shop/web-db-0")

    assert naming.carrier_name(before) != naming.carrier_name(after)
    assert placed(before, ()) == placed(after, ())
    assert placed(other, ()) != placed(before, ())


def test_at_most_one_on_a_node_is_kept_exactly() -> None:
    found = placed(spec(placement=NodePlacement(alone=True)), ())["affinity"]

    assert found == {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": SIBLINGS, "topologyKey": HOSTNAME}
            ]
        }
    }


def test_what_is_packed_goes_where_others_are_and_is_not_spread() -> None:
    found = placed(spec(placement=NodePlacement(pack=True)), [ZONE])

    (wish,) = found["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish == {"weight": 100, "podAffinityTerm": {"labelSelector": SIBLINGS, "topologyKey": HOSTNAME}}
    (never,) = found["topologySpreadConstraints"]
    assert never["maxSkew"] > 100_000


def test_another_placement_is_another_deployment_of_the_same_container() -> None:
    anywhere, meant = spec(), spec(placement=NodePlacement(alone=True))

    assert naming.carrier_name(anywhere) != naming.carrier_name(meant)
    assert naming.spec_digest(anywhere) == naming.spec_digest(meant)


def test_each_priority_but_the_usual_one_has_a_class_of_the_installations_own() -> None:
    made = classes("inst", {"by": "skep"})

    assert {one["value"] for one in made.values()} == {-10, 1000}
    assert all(one["metadata"] == {"name": name, "labels": {"by": "skep"}} for name, one in made.items())
    assert set(made) == set(names("inst").values()) == {"skep-inst-low", "skep-inst-high"}
    assert set(made).isdisjoint(classes("other", {}))


@pytest.mark.parametrize(
    ("priority", "name"),
    [(Priority.LOW, "skep-inst-low"), (Priority.NORMAL, None), (Priority.HIGH, "skep-inst-high")],
)
def test_pods_name_the_class_of_their_priority(priority: Priority, name: str | None) -> None:
    given: Any = Given(image="i", priorities=names("inst"))

    assert template(spec(priority=priority), given)["spec"].get("priorityClassName") == name


def test_who_says_nothing_of_placement_and_priority_is_as_before() -> None:
    written = msgspec.json.encode(spec(), enc_hook=str)

    assert b"placement" not in written
    assert b"priority" not in written

"""Which addresses pods may ask for, by what network plug-ins say of themselves."""

from typing import Any

import pytest
from tests.providers.kubernetes.scripted import document, serve, status

from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.joining.addressing import NOTHING, Addressing, Plugin, addressing, source_of

V1, V3, OVN = "crd.projectcalico.org/v1", "projectcalico.org/v3", "kubeovn.io/v1"


def served(*groups: str) -> dict[str, Any]:
    return {"groups": [{"versions": [{"groupVersion": group} for group in groups]}]}


def read(group: str, *specs: dict[str, Any], labels: tuple[bool, ...] = ()) -> tuple[str, ...]:
    source = source_of([group, "apps/v1"])
    assert source is not None
    marks = [{"skep.dev/fixed-addresses": "true"} if one else {} for one in labels] or [{}] * len(specs)
    found = [
        source.kind.from_dict({"metadata": {"name": f"p-{number}", "labels": mark}, "spec": spec})
        for number, (spec, mark) in enumerate(zip(specs, marks, strict=True))
    ]
    return source.read(found).ranges


@pytest.mark.parametrize("group", [V1, V3])
def test_pools_of_calico_count_if_they_are_enabled_and_for_pods(group: str) -> None:
    found = read(
        group,
        {"cidr": "10.2.0.0/16"},
        {"cidr": "10.1.0.0/16", "allowedUses": ["Workload", "Tunnel"], "nodeSelector": "!all()"},
        {"cidr": "10.3.0.0/16", "disabled": True},
        {"cidr": "10.4.0.0/16", "allowedUses": ["LoadBalancer"]},
    )

    assert found == ("10.1.0.0/16", "10.2.0.0/16")


def test_of_kube_ovn_it_is_the_subnet_in_which_namespaces_are_that_are_bound_to_none() -> None:
    default = {"cidrBlock": "10.16.0.0/16,fd00::/112", "default": True}

    found = read(OVN, default, {"cidrBlock": "100.64.0.0/16"})

    assert found == ("10.16.0.1-10.16.255.254", "fd00::1-fd00::fffe")


def test_nobody_may_have_the_address_of_a_gateway() -> None:
    subnet = {"cidrBlock": "10.16.0.0/24,fd00::/112", "gateway": "10.16.0.1,fd00::9", "default": True}

    found = read(OVN, subnet)

    assert found == ("10.16.0.2-10.16.0.254", "fd00::1-fd00::8", "fd00::a-fd00::fffe")


def test_where_an_operator_has_marked_any_only_these_count() -> None:
    found = read(V1, {"cidr": "10.1.0.0/16"}, {"cidr": "10.2.0.0/24"}, labels=(False, True))

    assert found == ("10.2.0.0/24",)


async def test_a_cluster_without_such_a_plug_in_has_none_and_one_that_hides_its_pools_says_so() -> None:
    async with serve(document(served("apps/v1"))) as server, Cluster(server.config(), "i") as cluster:
        without = await addressing(cluster)
    answers = (document(served(OVN)), document(status(403), 403))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        hidden = await addressing(cluster)

    assert without == NOTHING
    assert hidden == Addressing(Plugin.KUBE_OVN, unread="list subnets.kubeovn.io")

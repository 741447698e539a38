"""What a cluster offers now, asked of it again and again while it is led."""

from typing import Any

import pytest
from tests.providers.kubernetes.scripted import Answer, document, serve, status

from skep.model.clusters import ClusterOffers
from skep.model.needs import Need
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.host import offers
from skep.providers.kubernetes.joining.lacking import ALWAYS
from skep.providers.kubernetes.network.entrances import Entrance

USUAL = "storageclass.kubernetes.io/is-default-class"


def listed(*items: dict[str, Any]) -> Answer:
    return document({"metadata": {"resourceVersion": "1"}, "items": list(items)})


def storage_class(name: str, **marks: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": marks}, "provisioner": "p"}


CALICO = {"groups": [{"versions": [{"groupVersion": "crd.projectcalico.org/v1"}]}]}
POOL = {"metadata": {"name": "pods"}, "spec": {"cidr": "10.9.0.0/16"}}


async def test_disks_with_snapshots_an_ingress_class_and_a_pool_of_addresses_are_all_there_can_be() -> None:
    ingress = {"metadata": {"name": "nginx"}, "spec": {"controller": "c"}}
    answers = (
        listed(storage_class("fast", **{USUAL: "true"})),
        listed({"metadata": {"name": "kept"}, "driver": "p", "deletionPolicy": "Delete"}),
        listed(ingress),
        document(CALICO),
        listed(POOL),
    )
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        found = await offers(cluster)

    assert found.to_apps == ClusterOffers(lacks=ALWAYS, ranges=("10.9.0.0/16",))
    assert found.entrance == Entrance(ingress_class="nginx")


@pytest.mark.parametrize("code", [403, 404])
async def test_snapshots_that_are_not_served_or_not_to_be_seen_are_none(code: int) -> None:
    answers = (listed(storage_class("fast", **{USUAL: "true"})), document(status(code), code), listed())
    groups = document({"groups": []})
    async with serve(*answers, groups) as server, Cluster(server.config(), "i") as cluster:
        found = await offers(cluster)

    assert found.to_apps.lacks - ALWAYS == {
        Need.SNAPSHOTS,
        Need.ENDPOINTS,
        Need.ADDRESSES,
        Need.MACS,
    }


async def test_a_gateway_api_without_a_gateway_leads_nobody_in() -> None:
    groups = {"groups": [{"versions": [{"groupVersion": "gateway.networking.k8s.io/v1"}]}]}
    answers = (listed(storage_class("slow")), listed(), document(groups), listed())
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        found = await offers(cluster)

    assert found.to_apps.lacks - ALWAYS == {
        Need.VOLUMES,
        Need.SNAPSHOTS,
        Need.ENDPOINTS,
        Need.ADDRESSES,
        Need.MACS,
    }
    assert found.entrance is None

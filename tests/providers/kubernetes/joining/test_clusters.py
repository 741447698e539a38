"""A real cluster, looked at by its administrator, by skep's own account, and by somebody without rights."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.kubernetes.cluster import Cluster

from skep.model.errors import InvalidInput, Unavailable
from skep.providers.kubernetes import Clusters

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def account(kubernetes: Cluster) -> Iterator[dict[str, Any]]:
    """The kubeconfig of the account that the manifests make."""
    manifest = Clusters().rights()
    kubernetes.kubectl("apply", "--filename=-", stdin=manifest)
    where = ("--namespace", "skep-system", "get", "secret", "skep-token", "--output=jsonpath={.data.token}")
    while not (token := kubernetes.kubectl(*where)):  # the cluster fills it in a moment later
        time.sleep(0.1)
    yield kubeconfig(kubernetes, {"token": base64.b64decode(token).decode()})
    kubernetes.kubectl("delete", "--filename=-", "--wait=false", "--ignore-not-found", stdin=manifest)


def kubeconfig(kubernetes: Cluster, user: dict[str, Any]) -> dict[str, Any]:
    """The cluster's own, for another user."""
    document: dict[str, Any] = json.loads(kubernetes.layout.kubeconfig.read_text())
    document["users"][0]["user"] = user
    return document


async def test_the_administrator_may_everything_and_what_the_cluster_lacks_is_named(
    kubernetes: Cluster,
) -> None:
    found = await Clusters().check(kubernetes.layout.kubeconfig.read_text())

    verdicts = {one.subject: one.verdict for one in found.findings}
    assert (found.version, found.usable) == ("1.20", True)
    assert {name for name, verdict in verdicts.items() if verdict == "limited"} == {
        "isolation",
        "pod security",
        "usage",
    }


async def test_the_printed_rights_are_all_that_is_needed(account: dict[str, Any]) -> None:
    found = await Clusters().check(json.dumps(account))

    assert found.usable, found.findings


async def test_rights_that_miss_are_named(kubernetes: Cluster, account: dict[str, Any]) -> None:
    kubernetes.kubectl("delete", "clusterrolebinding", "skep")

    found = await Clusters().check(json.dumps(account))

    (rights,) = (one for one in found.findings if one.subject == "rights")
    assert (rights.verdict, found.usable) == ("missing", False)
    assert "get, list, watch, patch nodes;" in rights.message
    assert "more kinds" in rights.message


async def test_a_token_that_the_cluster_does_not_know_is_refused(kubernetes: Cluster) -> None:
    stranger = kubeconfig(kubernetes, {"token": "guessed"})

    with pytest.raises(
        InvalidInput, match=r"https://.* does not let in .*401 Unauthorized.*skep cluster rights"
    ):
        await Clusters().check(json.dumps(stranger))


async def test_a_cluster_that_does_not_answer_is_unavailable(kubernetes: Cluster) -> None:
    elsewhere = kubeconfig(kubernetes, {"token": "any"})
    elsewhere["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"

    with pytest.raises(Unavailable, match=r"No cluster answers at https://127\.0\.0\.1:1: "):
        await Clusters().check(json.dumps(elsewhere))

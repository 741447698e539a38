"""What is written of a carrier, and what somebody else's changes lead to."""

import asyncio
import json
from typing import Any

import msgspec
from lightkube import codecs
from tests.providers.kubernetes.pods.test_plans import DEPLOYMENT, entry, ledger
from tests.providers.kubernetes.scripted import Answer, document, serve, status

from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods.manifests import workload
from skep.providers.kubernetes.pods.objects import Objects

BASE = {"app.kubernetes.io/managed-by": "skep", "skep.dev/installation": "i"}
LEDGER = ledger(DEPLOYMENT, entry("a"))
TAKEN = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"', "field": ".spec.replicas"}


def answered(name: str) -> Answer:
    if name == "Deployment":
        return document(workload(LEDGER, {}, "u"))
    return document({"apiVersion": "v1", "kind": name, "metadata": {"name": "shop-web", "uid": "u"}})


def live(**spec: Any) -> Any:
    """The Deployment as the cluster has it."""
    manifest = json.loads(json.dumps(workload(LEDGER, BASE, "u")))
    manifest["spec"] |= spec
    return codecs.from_dict(manifest)


def test_two_pods_with_one_fixed_address_are_never_there_at_a_time() -> None:
    noted = {"metadata": {"annotations": {"ovn.kubernetes.io/ip_address": "10.9.0.7"}}, "spec": {}}
    fixed = workload(msgspec.structs.replace(LEDGER, template=noted), BASE, "u")

    assert fixed["spec"]["strategy"] == {"type": "Recreate"}
    assert "strategy" not in workload(LEDGER, BASE, "u")["spec"]


async def test_what_is_there_is_not_written_again() -> None:
    answers = (answered("ConfigMap"), answered("Secret"), answered("Deployment"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        objects.supply({"env": {"A": "eA=="}, "files": {}})
        for _ in range(3):
            await objects.write(LEDGER)
            await objects.apply(LEDGER)

    assert [what.rsplit("/", 2)[1:] for what, _ in server.asked] == [
        ["configmaps", "shop-web"],
        ["secrets", "shop-web-env"],
        ["deployments", "shop-web"],
    ]


async def test_fields_that_another_manager_took_are_taken_back() -> None:
    refused = document(status(409, details={"causes": [TAKEN]}), 409)
    answers = (answered("ConfigMap"), refused, answered("Deployment"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        await objects.write(LEDGER)
        await objects.apply(LEDGER)

    assert [asked.get("force") for _, asked in server.asked] == ["true", None, "true"]


async def test_what_somebody_changed_or_deleted_is_applied_again() -> None:
    answers = (answered("ConfigMap"), answered("Deployment"), answered("Deployment"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        await objects.write(LEDGER)
        await objects.apply(LEDGER)

        same = objects.differ(live(), gone=False)
        changed = objects.differ(live(replicas=5), gone=False)
        await objects.apply(LEDGER)
        deleted = objects.differ(live(), gone=True)

    assert (same, changed, deleted) == (False, True, True)
    assert len(server.asked) == 3


async def test_what_is_heard_while_it_is_applied_is_looked_at_afterwards() -> None:
    answers = (answered("ConfigMap"), answered("Deployment"), answered("Deployment"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        await objects.write(LEDGER)
        applying = asyncio.create_task(objects.apply(LEDGER))
        while len(server.asked) < 2 and not applying.done():
            objects.differ(live(), gone=True)
            await asyncio.sleep(0)

        assert await applying

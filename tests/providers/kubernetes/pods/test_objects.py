"""What is written of a carrier, and what somebody else's changes lead to."""

import asyncio
import json
from typing import Any

import msgspec
from lightkube import codecs
from tests.providers.kubernetes.pods.test_plans import DEPLOYMENT, POD, entry, ledger
from tests.providers.kubernetes.scripted import Answer, document, serve, status

from skep.model.ids import ContainerId
from skep.providers.kubernetes.applied import stamped
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


def live(uid: str | None = None, version: str | None = None, **spec: Any) -> Any:
    """The Deployment as the cluster has it."""
    manifest = json.loads(json.dumps(stamped(workload(LEDGER, BASE, "u"))))
    manifest["metadata"] |= {"uid": uid, "resourceVersion": version}
    manifest["spec"] |= spec
    return codecs.from_dict(manifest)


def test_two_pods_with_one_fixed_address_are_never_there_at_a_time() -> None:
    noted = {"metadata": {"annotations": {"ovn.kubernetes.io/ip_address": "10.9.0.7"}}, "spec": {}}
    fixed = workload(msgspec.structs.replace(LEDGER, template=noted), BASE, "u")

    assert fixed["spec"]["strategy"] == {"type": "Recreate"}
    assert "strategy" not in workload(LEDGER, BASE, "u")["spec"]


def applied(uid: str, version: str) -> Answer:
    manifest = workload(LEDGER, {}, "u")
    manifest["metadata"] |= {"uid": uid, "resourceVersion": version}
    return document(manifest)


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


async def test_that_pods_of_a_controller_have_begun_is_not_worth_a_request() -> None:
    begun = msgspec.structs.replace(LEDGER.entries[ContainerId("a")], begun=1.0)
    stopped = msgspec.structs.replace(begun, wanted=False)
    answers = (answered("ConfigMap"), answered("ConfigMap"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        for entry in LEDGER.entries[ContainerId("a")], begun, stopped:
            await objects.write(LEDGER.with_entry(entry))

    assert len(server.asked) == 2
    bare = msgspec.structs.replace(LEDGER, kind=POD)
    assert not bare.with_entry(begun).says_as_much_as(bare)


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


async def test_what_was_before_it_was_applied_is_nobody_s_doing() -> None:
    answers = (answered("ConfigMap"), applied("mine", "20"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        await objects.write(LEDGER)
        await objects.apply(LEDGER)

        before = objects.differ(live("mine", "19", replicas=5), gone=False)
        own = objects.differ(live("mine", "20"), gone=False)
        another = objects.differ(live("of before", "21"), gone=True)
        after = objects.differ(live("mine", "21", replicas=5), gone=False)

    assert (before, own, another, after) == (False, False, False, True)


async def test_what_was_heard_while_it_was_applied_may_have_been_before() -> None:
    answers = (answered("ConfigMap"), applied("mine", "20"))
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, None, "")
        await objects.write(LEDGER)
        applying = asyncio.create_task(objects.apply(LEDGER))
        while not applying.done():
            objects.differ(live("mine", "19", replicas=5), gone=False)
            await asyncio.sleep(0)

        assert not await applying


async def test_what_an_earlier_process_left_as_it_is_to_be_is_not_applied() -> None:
    async with serve() as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, LEDGER, "u")
        objects.differ(live("mine", "20"), gone=False)

        assert not await objects.apply(LEDGER)
        assert objects.differ(live("mine", "21", replicas=5), gone=False)

    assert server.asked == []


async def test_what_was_changed_while_nobody_saw_it_is_applied_again() -> None:
    async with serve(applied("mine", "21")) as server, Cluster(server.config(), "i") as cluster:
        objects = Objects(cluster, LEDGER, "u")
        objects.differ(live("mine", "20", replicas=5), gone=False)
        await objects.apply(LEDGER)

    assert len(server.asked) == 1


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

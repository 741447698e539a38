"""What is done for a carrier: who leaves, who ends, who is made, who becomes whom."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import msgspec

from skep.model.ids import ContainerId, ReplicaId, TenantId
from skep.providers.kubernetes.pods import manifests
from skep.providers.kubernetes.pods.ledger import Entry, Exit, Ledger
from skep.providers.kubernetes.pods.manifests import pod, workload
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.plans import Work, work
from skep.providers.kubernetes.pods.seen import SeenPod

TEMPLATE = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
BASE = {"skep.dev/installation": "i"}


def entry(name: str, *, wanted: bool = True, attempt: int = 1, exit: Exit | None = None) -> Entry:  # noqa: A002
    return Entry(
        id=ContainerId(name),
        replica=ReplicaId(f"r-{name}"),
        name=f"shop/{name}",
        spec="",
        wanted=wanted,
        attempt=attempt,
        exit=exit,
    )


def ledger(kind: CarrierKind, *entries: Entry) -> Ledger:
    return Ledger(
        kind=kind,
        name="shop-web",
        namespace="n",
        tenant=TenantId("t"),
        app="shop",
        service="web",
        template=TEMPLATE,
        shape="s",
        entries={one.id: one for one in entries},
    )


def seen(name: str, container: str = "", **changes: object) -> SeenPod:
    made = SeenPod(
        name=name, namespace="n", container=ContainerId(container) if container else None, member=True
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def of(
    kind: CarrierKind,
    entries: list[Entry],
    pods: list[SeenPod],
    named: Collection[ReplicaId] = (),
) -> Work:
    binding: Mapping[ContainerId, str] = {one.container: one.name for one in pods if one.container}
    return work(ledger(kind, *entries), pods, binding, named)


DEPLOYMENT, SET, POD = CarrierKind.DEPLOYMENT, CarrierKind.STATEFUL_SET, CarrierKind.POD


def test_free_pods_become_containers_that_have_none_those_that_run_first() -> None:
    pods = [seen("late"), seen("runs", since=1.0), seen("taken", "a")]

    found = of(DEPLOYMENT, [entry("a"), entry("b")], pods)

    assert {name: one.id for name, one in found.bind.items()} == {"runs": "b"}
    assert (found.leave, found.end) == ({}, [])


def test_pods_say_which_container_they_are_once_they_run_or_before_if_somebody_needs_to_know() -> None:
    waits, runs, said = seen("waits", "a"), seen("runs", "b", since=1.0), seen("said", "c", since=1.0)
    pods = [waits, runs, replace(said, labelled=True), seen("new", since=1.0)]
    entries = [entry(name) for name in "abcd"]

    found = of(DEPLOYMENT, entries, pods)
    named = of(DEPLOYMENT, entries, pods, named=[ReplicaId("r-a")])

    assert {name: one.id for name, one in found.label.items()} == {"runs": "b", "new": "d"}
    assert {name: one.id for name, one in named.label.items()} == {"waits": "a", "runs": "b", "new": "d"}


def test_nobody_becomes_a_pod_that_ends() -> None:
    pods = [seen("x", deleting=True), seen("y", member=False), seen("z", phase="Failed")]

    found = of(DEPLOYMENT, [entry("a")], pods)

    assert found.bind == {}
    assert found.end == ["z"]


def test_what_is_not_wanted_leaves_its_deployment_before_it_ends() -> None:
    pods = [seen("a-pod", "a"), seen("b-pod", "b"), seen("left", "gone", member=False)]

    found = of(DEPLOYMENT, [entry("a"), entry("b", wanted=False)], pods)

    assert (found.leave, found.all_go, found.end) == ({"b-pod": "b"}, [], ["b-pod", "left"])


def test_where_all_go_none_leaves_since_another_would_begin_beside_it() -> None:
    found = of(DEPLOYMENT, [entry("a", wanted=False)], [seen("a-pod", "a")])

    assert (found.leave, found.workload, found.all_go, found.end) == ({}, True, ["a-pod"], ["a-pod"])


def test_a_set_ends_the_pod_of_the_container_before() -> None:
    found = of(SET, [entry("a", wanted=False), entry("b")], [seen("x-0", "a")])

    assert (found.workload, found.end) == (True, ["x-0"])


def test_each_start_of_a_pod_of_its_own_is_another_pod() -> None:
    ran = seen("a-1", "a", attempt=1, phase="Failed")

    first = of(POD, [entry("a")], [])
    over = of(POD, [entry("a", exit=Exit(code=1))], [ran])
    again = of(POD, [entry("a", attempt=2)], [ran])
    still = of(POD, [entry("a", attempt=2)], [replace(ran, phase="Running")])
    there = of(POD, [entry("a", attempt=2)], [seen("a-2", "a", attempt=2)])

    assert [one.id for one in first.make] == ["a"]
    assert (over.make, over.end) == ([], [])
    assert ([one.attempt for one in again.make], again.end) == ([2], ["a-1"])
    assert (still.make, still.end) == ([], ["a-1"])
    assert (there.make, there.end) == ([], [])


def test_a_pod_of_its_own_that_is_stopped_ends_and_one_that_is_over_stays_for_its_log() -> None:
    stopped = of(POD, [entry("a", wanted=False)], [seen("a-1", "a", attempt=1)])
    over = of(POD, [entry("a", wanted=False)], [seen("a-1", "a", attempt=1, phase="Failed")])
    removed = of(POD, [entry("b")], [seen("a-1", "a", attempt=1, phase="Failed")])

    assert (stopped.end, over.end, removed.end) == (["a-1"], [], ["a-1"])


def test_a_deployment_has_as_many_replicas_as_are_wanted() -> None:
    made = workload(ledger(DEPLOYMENT, entry("a"), entry("b"), entry("c", wanted=False)), BASE, "u")

    labels = made["spec"]["template"]["metadata"]["labels"]
    assert (made["kind"], made["spec"]["replicas"]) == ("Deployment", 2)
    assert made["spec"]["selector"] == {"matchLabels": {"skep.dev/member": "shop-web"}}
    assert labels["skep.dev/carrier"] == labels["skep.dev/member"] == "shop-web"
    assert "skep.dev/container" not in labels
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "shop-web", "uid": "u"}
    ]


def test_a_set_of_one_is_the_container_that_is_wanted_and_changes_when_told() -> None:
    made = workload(ledger(SET, entry("a", wanted=False), entry("b")), BASE, "u")

    assert made["spec"]["template"]["metadata"]["labels"]["skep.dev/container"] == "b"
    assert made["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert made["spec"]["replicas"] == 1


def test_a_pod_is_named_by_its_start() -> None:
    made = pod(ledger(POD, entry("a")), entry("a", attempt=3), BASE, "u")

    assert made["metadata"]["name"] == "shop-web-3"
    assert made["metadata"]["labels"]["skep.dev/attempt"] == "3"


def test_pods_bear_the_networks_of_their_template() -> None:
    template = {**TEMPLATE, "metadata": {"labels": {"skep.dev/network-n1": "out"}}}

    def labels(kind: CarrierKind) -> dict[str, str]:
        known = msgspec.structs.replace(ledger(kind, entry("a")), template=template)
        if kind is POD:
            made = pod(known, entry("a"), BASE, "u")
        else:
            made = workload(known, BASE, "u")["spec"]["template"]
        found: dict[str, str] = made["metadata"]["labels"]
        return found

    assert all(labels(kind)["skep.dev/network-n1"] == "out" for kind in CarrierKind)
    assert all("skep.dev/carrier" in labels(kind) for kind in CarrierKind)


def test_secrets_go_with_the_ledger() -> None:
    made = manifests.secret(ledger(POD, entry("a")), "env", {"A": "eA=="}, BASE, "u")

    assert (made["metadata"]["name"], made["data"]) == ("shop-web-env", {"A": "eA=="})
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"

"""When pods of a Deployment are told which container they are."""

import asyncio
from typing import Any

import msgspec
from structlog.testing import capture_logs
from tests.providers.kubernetes.pods.test_plans import DEPLOYMENT, TEMPLATE, entry, ledger, seen
from tests.providers.kubernetes.scripted import Answer, document, serve, status

from skep.model.ids import ContainerId, ReplicaId, TenantId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods.ledger import Ledger
from skep.providers.kubernetes.pods.manifests import workload
from skep.providers.kubernetes.pods.objects import Objects
from skep.providers.kubernetes.pods.roster import Roster
from skep.providers.kubernetes.pods.rounds import Rounds
from skep.providers.kubernetes.pods.seen import SeenPod

A = ContainerId("a")
MARKED = {**TEMPLATE, "metadata": {"labels": {"skep.dev/network-n1": "out"}}}
BOUND = {"metadata": {"labels": {"skep.dev/container": "a", "skep.dev/replica": "r-a"}}}


def kept(template: dict[str, Any] = MARKED) -> Ledger:
    wired = msgspec.structs.replace(entry("a"), ports=True)
    return msgspec.structs.replace(ledger(DEPLOYMENT, wired), template=template)


async def patched(roster: Roster, *, guarded: bool = False, there: bool = True) -> list[Any]:
    """What a round says of pods."""
    kept, gone = document({"metadata": {"uid": "u"}}), document({"kind": "Status", "status": "Success"})
    answers: list[Answer] = [
        kept,
        document(workload(roster.ledger, {}, "u")),
        document({}) if there else document(status(404), 404),
        gone,
    ]
    if len(roster.ledger.wanted) < len(roster.ledger.entries):
        answers[1:3] = reversed(answers[1:3])
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:

        def spoken_of(tenant: TenantId) -> list[ReplicaId]:
            return [ReplicaId("r-a")] if guarded and tenant == "t" else []

        objects = Objects(cluster, None, "")
        rounds = Rounds(roster, objects, lambda _: None, lambda work: work.close(), spoken_of)
        await rounds.done()
    return [body for (path, _), body in zip(server.asked, server.bodies, strict=True) if "/pods/" in path]


def with_pod(pod: SeenPod, known: Ledger | None = None) -> Roster:
    made = Roster(known or kept(), lambda: 1000.0)
    made.heard(pod, gone=False)
    return made


async def test_one_that_begins_is_left_alone_until_it_runs() -> None:
    waits, runs = with_pod(seen("pod-1")), with_pod(seen("pod-1", since=900.0))

    assert (await patched(waits), waits.binding) == ([], {A: "pod-1"})
    assert await patched(runs) == [BOUND]
    runs.heard(seen("pod-1", "a", since=900.0, labelled=True), gone=False)
    assert await patched(runs) == []


async def test_one_that_rules_name_is_told_before_it_runs() -> None:
    guarded, older = with_pod(seen("pod-1")), with_pod(seen("pod-1"), kept(TEMPLATE))

    assert await patched(guarded, guarded=True) == [BOUND]
    assert await patched(older) == [BOUND]


async def test_nobody_is_told_twice_before_it_says_so_itself() -> None:
    found = with_pod(seen("pod-1", since=900.0))
    answers = document({"metadata": {"uid": "u"}}), document(workload(found.ledger, {}, "u")), document({})
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        rounds = Rounds(
            found, Objects(cluster, None, ""), lambda _: None, lambda work: work.close(), lambda _: ()
        )
        await rounds.done()
        await rounds.done()

    assert [path.rpartition("/")[2] for path, _ in server.asked][2:] == ["pod-1"]


async def test_one_whose_label_somebody_takes_away_is_told_again() -> None:
    found = with_pod(seen("pod-1", since=900.0))
    answers = document({"metadata": {"uid": "u"}}), document(workload(found.ledger, {}, "u"))
    async with (
        serve(*answers, document({}), document({})) as server,
        Cluster(server.config(), "i") as cluster,
    ):
        rounds = Rounds(
            found, Objects(cluster, None, ""), lambda _: None, lambda work: work.close(), lambda _: ()
        )
        await rounds.done()
        found.heard(seen("pod-1", "a", since=900.0, labelled=True), gone=False)
        await rounds.done()
        found.heard(seen("pod-1", since=900.0), gone=False)
        await rounds.done()

    assert [path.rpartition("/")[2] for path, _ in server.asked][2:] == ["pod-1", "pod-1"]
    assert server.bodies[2:] == [BOUND, BOUND]


async def test_one_that_turns_out_to_be_gone_goes_on_in_the_next() -> None:
    found = with_pod(seen("pod-1", since=900.0))

    await patched(found, there=False)
    found.heard(seen("pod-1", since=900.0), gone=True)

    assert (found.status(A).restarts, found.binding, found.pods) == (1, {}, {})


async def test_who_leaves_says_whose_it_was() -> None:
    found = with_pod(seen("pod-1"), kept().with_entry(entry("b")))
    found.bind("pod-1", A)
    found.stop(A, 0)

    left, _ended = await patched(found)

    assert left == {"metadata": {"labels": {"skep.dev/member": None, "skep.dev/container": "a"}}}


async def test_what_many_waited_for_is_tried_again_once() -> None:
    found, later = with_pod(seen("pod-1")), list[Any]()
    refused = document(status(422), 422)
    async with serve(*[refused] * 5) as server, Cluster(server.config(), "i") as cluster:
        rounds = Rounds(found, Objects(cluster, None, ""), lambda _: None, later.append, lambda _: ())
        for _ in range(20):
            rounds.begin()
        with capture_logs() as said:
            await asyncio.gather(*later)

    assert [one["event"] for one in said] == ["cluster.round-failed"]
    assert said[0]["again_in"] < 1


async def test_who_has_left_tries_nothing_again() -> None:
    found, later = with_pod(seen("pod-1")), list[Any]()
    async with serve(document(status(422), 422)) as server, Cluster(server.config(), "i") as cluster:
        rounds = Rounds(found, Objects(cluster, None, ""), lambda _: None, later.append, lambda _: ())
        rounds.begin()
        await later.pop()
        await rounds.rest()
        await asyncio.sleep(0.5)  # longer than the pause after the first failure
        rounds.kick()

    assert later == []
    assert len(server.asked) == 1

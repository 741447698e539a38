"""What becomes of containers when something is ordered of them, or heard of their pods."""

from dataclasses import replace

import msgspec
import pytest
from tests.providers.kubernetes.pods.test_plans import DEPLOYMENT, POD, SET, TEMPLATE, entry, ledger, seen

from skep.model.errors import Conflict
from skep.model.host import ContainerState
from skep.model.ids import ContainerId
from skep.model.spec import RestartPolicy
from skep.providers.kubernetes.pods.ledger import Entry, Exit
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.plans import Work, work
from skep.providers.kubernetes.pods.roster import Heard, Roster
from skep.providers.kubernetes.pods.seen import Ended, SeenPod

A = ContainerId("a")
NOW = 1000.0
RUNS = seen("pod-1", "a", since=900.0, attempt=1, labelled=True)
ENDED = replace(RUNS, since=None, phase="Failed", ended=Ended(code=3, at=950.0, started=900.0))


def roster(kind: CarrierKind, *entries: Entry, pods: tuple[SeenPod, ...] = ()) -> Roster:
    found = Roster(ledger(kind, *(entries or (entry("a"),))), lambda: NOW)
    for pod in pods:
        found.heard(pod, gone=False)
    return found


def job(**policy: object) -> Entry:
    return msgspec.structs.replace(entry("a"), restart=RestartPolicy(**policy))  # type: ignore[arg-type]


def test_a_container_is_its_pod_as_soon_as_that_is_heard_of() -> None:
    found = roster(SET)

    heard = found.heard(RUNS, gone=False)

    assert heard == Heard(A)
    assert found.pod(A) == RUNS
    assert found.status(A).state is ContainerState.RUNNING


def test_pods_of_nobody_are_work() -> None:
    found = roster(DEPLOYMENT)

    assert found.heard(seen("pod-1"), gone=False) == Heard(work=True)
    assert found.heard(seen("pod-2", "removed"), gone=False) == Heard(work=True)


def test_a_pod_is_its_container_before_it_says_so_itself() -> None:
    found, anew = roster(DEPLOYMENT), seen("pod-1")
    found.heard(anew, gone=False)

    found.bind("pod-1", A)
    waits = found.heard(anew, gone=False)
    runs = found.heard(replace(anew, since=900.0), gone=False)
    again = found.heard(replace(RUNS, ready=True), gone=False)

    assert (waits, runs, again) == (Heard(A), Heard(A, waited=True), Heard(A))
    assert found.pod(A) == replace(RUNS, ready=True)


@pytest.mark.parametrize("ports", [True, False])
def test_one_that_others_are_led_to_has_begun_once_its_pod_says_whose_it_is(ports: bool) -> None:
    found = roster(DEPLOYMENT, msgspec.structs.replace(entry("a"), ports=ports))
    found.heard(seen("pod-1", since=900.0), gone=False)
    found.bind("pod-1", A)

    before = found.begun(A)
    found.heard(RUNS, gone=False)

    assert (before, found.begun(A)) == (not ports, True)


def test_a_pod_that_another_process_told_to_be_another_is_that_one() -> None:
    found = roster(DEPLOYMENT, entry("a"), entry("b"), pods=(seen("pod-1"), seen("pod-2")))
    found.bind("pod-1", ContainerId("b"))

    mine = found.heard(RUNS, gone=False)
    found.bind("pod-2", ContainerId("b"))
    foreign = found.heard(seen("pod-2", "removed", labelled=True), gone=False)

    assert (mine.work, foreign.work, found.binding) == (True, True, {A: "pod-1"})


def rounded(known: Roster) -> Work:
    """A round that nothing is carried out of but what is in memory."""
    todo = work(known.ledger, list(known.pods.values()), known.binding)
    for name, one in todo.bind.items():
        known.bind(name, one.id)
    return todo


@pytest.mark.parametrize("pod", [seen("p1", since=900.0), seen("p1", unschedulable="0/2 nodes")])
def test_a_start_that_is_repeated_leaves_the_container_its_pod(pod: SeenPod) -> None:
    known = roster(DEPLOYMENT, entry("a"), pods=(pod,))
    rounded(known)

    known.start(known.entry(A), TEMPLATE, "s")
    rounded(known)

    assert known.binding == {A: "p1"}


def test_of_two_pods_that_processes_told_to_be_the_same_one_goes() -> None:
    b = ContainerId("b")
    known = roster(DEPLOYMENT, entry("a"), entry("b"), pods=(seen("p1", since=9.0), seen("p2", since=9.0)))
    known.bind("p1", b)
    known.bind("p2", A)
    for late in "p1", "p2":
        known.heard(seen(late, "a", since=9.0, labelled=True), gone=False)

    todo = rounded(known)

    assert (todo.leave, todo.end) == ({"p1": A}, ["p1"])
    assert known.binding == {A: "p2"}  # b gets the one that its Deployment makes for it


def test_a_pod_that_has_left_is_nobodys_again_and_ends() -> None:
    said = seen("p1", "a", since=9.0, labelled=True)
    known = roster(DEPLOYMENT, entry("a"), pods=(said,))
    known.stop(A, 10)
    left = replace(said, member=False)
    known.heard(left, gone=False)  # it was told to end, and that was not heard
    known.start(entry("a"), TEMPLATE, "s")
    known.heard(seen("p2"), gone=False)
    rounded(known)

    known.heard(replace(left, ready=True), gone=False)

    assert rounded(known).end == ["p1"]
    assert known.binding == {A: "p2"}


def test_news_of_a_pod_that_turned_out_to_be_gone_are_none() -> None:
    found = roster(DEPLOYMENT, pods=(RUNS,))

    whose = found.gone("pod-1")
    late = found.heard(RUNS, gone=False), found.heard(RUNS, gone=True)

    assert (whose, late, found.pods, found.status(A).restarts) == (A, (Heard(), Heard()), {}, 1)


def test_one_that_goes_before_it_said_whose_it_was_is_a_restart_as_any_other() -> None:
    found, anew = roster(DEPLOYMENT), seen("pod-1", since=900.0)
    found.heard(anew, gone=False)
    found.bind("pod-1", A)

    heard = found.heard(anew, gone=True)

    assert (heard.container, heard.work, found.pod(A)) == (A, True, None)
    assert found.status(A).restarts == 1


def test_a_lost_pod_of_a_controller_is_a_restart_in_the_next_one() -> None:
    found = roster(SET, pods=(replace(RUNS, restarts=2),))

    heard = found.heard(replace(RUNS, restarts=2), gone=True)

    assert heard.work
    assert found.pod(A) is None
    assert found.status(A).state is ContainerState.RESTARTING
    assert found.status(A).restarts == 3


def test_a_bare_pod_that_somebody_deleted_has_ended_without_a_code() -> None:
    found = roster(POD, job(condition="no"), pods=(RUNS,))

    heard = found.heard(RUNS, gone=True)

    assert heard == Heard(A, work=True)
    assert found.entry(A).exit == Exit(error="Its pod was deleted in the cluster.", at=NOW)


def test_what_ended_by_itself_is_started_again_as_its_policy_says() -> None:
    found = roster(POD, job(condition="on-failure"), pods=(RUNS,))

    heard = found.heard(ENDED, gone=False)
    status = found.status(A)
    again = found.again(A)

    assert heard.again is not None
    assert status.state is ContainerState.RESTARTING
    assert status.exit_code == 3
    assert again
    assert found.entry(A).attempt == 2
    assert found.entry(A).exit is None


def test_what_was_stopped_meanwhile_is_not_started_again() -> None:
    found = roster(POD, job(condition="on-failure"), pods=(RUNS,))
    found.heard(ENDED, gone=False)

    found.stop(A, None)

    assert not found.again(A)
    assert found.status(A).state is ContainerState.EXITED


def test_what_is_never_to_start_again_is_left_as_it_ended() -> None:
    found = roster(POD, job(condition="no"), pods=(RUNS,))

    heard = found.heard(ENDED, gone=False)

    assert heard == Heard(A, work=True)
    assert found.status(A).state is ContainerState.EXITED


def test_the_end_of_an_earlier_attempt_says_nothing_of_the_next() -> None:
    found = roster(POD, job(condition="no"), pods=(RUNS, ENDED))
    found.restart(A)

    heard = found.heard(ENDED, gone=True)

    assert heard.container == A
    assert found.entry(A).exit is None
    assert not found.begun(A)


def test_what_is_stopped_before_it_had_a_pod_was_killed() -> None:
    found = roster(DEPLOYMENT)

    grace = found.stop(A, 7.0)

    assert grace == 7.0
    assert found.entry(A).exit == Exit(code=137, at=NOW)


def test_a_pod_has_the_time_for_its_end_that_was_said_or_its_own() -> None:
    found = roster(SET, pods=(RUNS,))
    before = found.grace("pod-1")
    own = found.stop(A, None)

    assert before == 0
    assert own == found.grace("pod-1") == found.entry(A).grace


def test_a_place_of_one_is_given_to_another_only_when_it_is_free() -> None:
    found = roster(SET, entry("a"))
    other = entry("b")
    with pytest.raises(Conflict, match="shop/b runs already"):
        found.start(other, TEMPLATE, "s")

    found.stop(A, None)
    found.start(other, TEMPLATE, "s")

    assert [one.id for one in found.ledger.wanted] == ["b"]


def test_what_runs_keeps_its_template_as_long_as_its_shape_is_the_same() -> None:
    found = roster(DEPLOYMENT)

    found.start(entry("b"), {"metadata": {}, "spec": {}}, "s")
    same = found.ledger.template
    found.start(entry("b"), {"metadata": {}, "spec": {}}, "another")

    assert same == TEMPLATE
    assert found.ledger.template == {"metadata": {}, "spec": {}}


def test_a_start_after_an_end_is_another_attempt() -> None:
    found = roster(POD, entry("a", attempt=3, exit=Exit(code=0)))

    found.start(entry("a"), TEMPLATE, "s")

    assert found.entry(A).attempt == 4
    assert found.entry(A).exit is None


def test_what_ran_under_an_earlier_process_and_is_not_there_was_deleted() -> None:
    ran = msgspec.structs.replace(job(condition="always"), begun=900.0)
    alone, carried = roster(POD, ran), roster(SET, ran)

    alone.missing(A)
    carried.missing(A)

    assert alone.entry(A).exit == Exit(error="Its pod was deleted in the cluster.", at=NOW)
    assert carried.entry(A).exit is None


LOST = "Its node node-1 has not answered since 00:15:00 UTC."
MOUNTS = {
    "spec": {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "disk-d"}}, {"name": "o"}]}
}


def on_silent_node(kind: CarrierKind, **changes: object) -> Roster:
    silences = {"node-1": 900.0}
    known = msgspec.structs.replace(ledger(kind, entry("a")), **changes)
    found = Roster(known, lambda: NOW, silences.get)
    found.heard(replace(RUNS, node="node-1"), gone=False)
    return found


def test_what_has_no_disk_counts_as_ended_where_its_node_is_silent_and_what_has_one_does_not() -> None:
    plain, with_disk = on_silent_node(DEPLOYMENT), on_silent_node(SET, template=MOUNTS)

    assert (plain.ended(A), with_disk.ended(A)) == (True, False)
    assert (plain.claims, with_disk.claims) == (frozenset(), frozenset({"disk-d"}))
    for found in (plain, with_disk):
        assert found.status(A).state is ContainerState.RUNNING
        assert found.status(A).error.startswith(LOST)


def test_what_is_kept_from_its_next_pod_by_one_on_a_silent_node_says_so() -> None:
    found = on_silent_node(SET, template=MOUNTS)

    found.heard(replace(RUNS, node="node-1", deleting=True), gone=False)

    assert found.status(A).state is ContainerState.RESTARTING
    assert found.status(A).error.startswith(LOST)
    assert not found.ended(A)


def test_a_pod_that_is_about_to_end_runs_until_it_has() -> None:
    found = roster(DEPLOYMENT, pods=(RUNS, replace(RUNS, deleting=True)))
    lingers = not found.ended(A)

    found.heard(RUNS, gone=True)

    assert lingers
    assert found.ended(A)


def test_a_container_that_starts_again_mounts_the_claim_that_its_disk_has_become() -> None:
    found = roster(SET)
    found.stop(A, 0)
    mounted = [{"name": "mount-0", "persistentVolumeClaim": {"claimName": "disk-d1-1"}}]
    other = {"metadata": {}, "spec": {"containers": [], "volumes": mounted}}

    found.start(entry("a"), other, found.ledger.shape)
    found.start(entry("a"), other | {"metadata": {"labels": {"new": "form"}}}, found.ledger.shape)

    assert found.ledger.template == other
    assert found.claims == {"disk-d1-1"}

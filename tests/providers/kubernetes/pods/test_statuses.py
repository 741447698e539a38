"""What a pod looks like, and what that means."""

import re
from typing import Any

import msgspec
import pytest
from tests.providers.kubernetes.pods.specs import ended, pod, running, waiting

from skep.model.host import ContainerState, Health
from skep.model.ids import ContainerId, ReplicaId, Seconds
from skep.providers.kubernetes.pods import statuses, words
from skep.providers.kubernetes.pods.ledger import Entry, Exit, Ledger, read, written
from skep.providers.kubernetes.pods.naming import CarrierKind
from skep.providers.kubernetes.pods.seen import SeenPod
from skep.providers.kubernetes.pods.statuses import status

NOW = 1000.0
C, R = ContainerId("01hc0000000000000001"), ReplicaId("01hr0000000000000001")
CRASHING = pod(waiting("CrashLoopBackOff", "back-off 10s"), last=ended(3), restarts=2)


def entry(**changes: Any) -> Entry:
    return msgspec.structs.replace(Entry(id=C, replica=R, name="shop/web-0", spec="x"), **changes)


@pytest.mark.parametrize(
    ("kept", "seen", "state"),
    [
        (entry(), None, ContainerState.CREATED),
        (entry(), pod(waiting("ContainerCreating")), ContainerState.CREATED),
        (entry(), pod(running()), ContainerState.RUNNING),
        (entry(begun=1.0), None, ContainerState.RESTARTING),
        (entry(), CRASHING, ContainerState.RESTARTING),
        (entry(), pod(ended(0)), ContainerState.RESTARTING),
        (entry(exit=Exit(code=3)), pod(ended(3), phase="Failed"), ContainerState.EXITED),
        (entry(exit=Exit(code=3), again=True), pod(ended(3), phase="Failed"), ContainerState.RESTARTING),
        (entry(wanted=False), pod(running(), deleting=True), ContainerState.RUNNING),
        (entry(wanted=False), None, ContainerState.EXITED),
        (entry(wanted=False, exit=Exit(code=143)), None, ContainerState.EXITED),
    ],
)
def test_states(kept: Entry, seen: SeenPod | None, state: ContainerState) -> None:
    assert status(kept, seen, NOW).state is state


def test_restarts_of_this_pod_and_of_those_before_are_counted() -> None:
    assert status(entry(restarts=3), CRASHING, NOW).restarts == 5


def test_an_exit_code_is_that_of_the_last_end_and_of_nothing_that_runs() -> None:
    crashed = status(entry(), CRASHING, NOW)
    again = status(entry(), pod(running(), last=ended(3)), NOW)
    stopped = status(entry(wanted=False, exit=Exit(code=143, at=9.0)), None, NOW)
    unseen = status(entry(exit=Exit(error="gone")), None, NOW)

    assert (crashed.exit_code, crashed.finished_at, crashed.started_at) == (3, 200.0, 150.0)
    assert (again.exit_code, again.started_at) == (None, 100.0)
    assert (stopped.exit_code, stopped.finished_at) == (143, 9.0)
    assert (unseen.state, unseen.exit_code, unseen.error) == (ContainerState.EXITED, None, "gone")


def test_what_runs_has_the_addresses_that_the_cluster_gave_it() -> None:
    runs = pod(running(), podIP="10.64.1.7", hostIP="198.51.100.3")

    found = status(entry(), runs, NOW)
    before = status(entry(), pod(waiting("ErrImagePull"), hostIP="198.51.100.3"), NOW)

    assert (found.address, found.node) == ("10.64.1.7", "198.51.100.3")
    assert (before.address, before.node) == ("", "")


def test_out_of_memory_is_said() -> None:
    assert status(entry(), pod(waiting("CrashLoopBackOff"), last=ended(137, "OOMKilled")), NOW).oom_killed
    assert status(entry(exit=Exit(code=137, oom=True)), None, NOW).oom_killed


@pytest.mark.parametrize(
    ("ready", "now", "health"),
    [
        ((True, 105.0), NOW, Health.HEALTHY),
        ((False, 99.0), 110.0, Health.STARTING),
        ((False, 99.0), 131.0, Health.UNHEALTHY),
        ((False, 120.0), 121.0, Health.UNHEALTHY),
    ],
)
def test_what_was_never_well_is_starting_for_as_long_as_compose_says(
    ready: tuple[bool, float], now: float, health: Health
) -> None:
    checked = entry(checked=Seconds(30))

    found = status(checked, pod(running(100.0), ready=ready), now)

    assert found.health is health
    assert status(entry(), pod(running(), ready=ready), now).health is Health.NONE


def test_it_is_known_when_what_starts_becomes_unwell() -> None:
    checked = entry(checked=Seconds(30))

    assert statuses.unwell_at(checked, pod(running(100.0))) == 130.0
    assert statuses.unwell_at(checked, pod(running(100.0), ready=(True, 101.0))) is None
    assert statuses.unwell_at(entry(), pod(running(100.0))) is None
    assert statuses.unwell_at(checked, None) is None


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (pod(waiting("ImagePullBackOff", 'Back-off pulling "x"')), "image cannot be pulled"),
        (pod(waiting("CreateContainerConfigError", 'secret "a" not found')), 'secret "a" not found'),
        (CRASHING, "again and again"),
        (pod(phase="Failed", reason="Evicted", message="low on resource: memory."), "put it out: low on"),
        (pod(running(50.0), ready=(False, 99.0)), "node-1 does not answer"),
        (pod(running(50.0), ready=(True, 99.0)), "^$"),
        (
            pod(
                initContainerStatuses=[
                    {
                        **msgspec.to_builtins({}),
                        "name": "copy",
                        "image": "i",
                        "imageID": "i",
                        "ready": False,
                        "restartCount": 0,
                        "state": ended(1),
                    }
                ]
            ),
            "copy exited with 1",
        ),
    ],
)
def test_why_something_does_not_run_is_said(seen: SeenPod, said: str) -> None:
    assert re.search(said, status(entry(), seen, NOW).error)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.",
            "None of 3 nodes can take it: 1 have too little CPU left, 2 have too little memory left.",
        ),
        (
            "0/2 nodes are available: 1 node(s) had taint {key: value}, that the pod didn't tolerate, "
            "1 node(s) were unschedulable.",
            "None of 2 nodes can take it: 1 are kept free (key: value), 1 take no new containers (cordoned).",
        ),
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint {a: }. preemption: 0/1 nodes are "
            "available: 1 Preemption is not helpful for scheduling.",
            "None of 1 nodes can take it: 1 are kept free (a: ).",
        ),
        (
            '0/2 nodes are available: 2 persistentvolumeclaim "disk-a" not found.',
            "Its disk is gone: somebody took disk-a from the cluster, and skep puts no empty one in the "
            "place of data. Bring the claim back under that name, or remove the app and apply it again.",
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't match node selector.",
            "None of 2 nodes can take it: 2 are not what its placement asks for.",
        ),
        (
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't "
            "match pod anti-affinity rules.",
            "None of 3 nodes can take it: 1 are not what its placement asks for, 2 run one of its replicas "
            "already.",
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't match pod affinity/anti-affinity, 2 node(s) didn't "
            "match pod anti-affinity rules.",
            "None of 2 nodes can take it: 2 run one of its replicas already.",
        ),
        ("0/1 nodes are available: 1 new words.", "None of 1 nodes can take it: 1: new words."),
        (
            "0/2 nodes are available: 2 pod has unbound immediate PersistentVolumeClaims.",
            "None of 2 nodes can take it: 2 wait for its disk to be made.",
        ),
        ("something else", "The cluster finds no place for it: something else"),
    ],
)
def test_the_schedulers_words_are_translated(message: str, said: str) -> None:
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}

    assert words.why_not(pod(node="", conditions=[unplaced])) == said


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (pod(ended(128, "StartError", 'failed: exec: "/x": stat /x: no such file')), 'exec: "/x": stat'),
        (pod(waiting("CrashLoopBackOff"), last=ended(128, "StartError", "no /x")), "no /x"),
        (pod(waiting("CreateContainerError", "unable to find user 7")), "unable to find user 7"),
        (pod(waiting("RunContainerError")), "RunContainerError"),
        (pod(waiting("CreateContainerConfigError", "failed to sync secret cache")), ""),
        (CRASHING, ""),
        (pod(running()), ""),
    ],
)
def test_what_waiting_does_not_mend_is_told_from_what_it_does(seen: SeenPod, said: str) -> None:
    assert words.fatal(seen).startswith(said)
    assert bool(words.fatal(seen)) is bool(said)


def test_a_ledger_is_read_as_it_was_written() -> None:
    ledger = Ledger(
        kind=CarrierKind.POD,
        name="a",
        namespace="n",
        tenant="t",  # type: ignore[arg-type]
        app="shop",
        service="web",
        template={"spec": {"x": [1]}},
        shape="s",
        entries={C: entry(exit=Exit(code=1))},
    )

    assert read(written(ledger, {})["data"]) == ledger
    with pytest.raises(ValueError):
        read({})


@pytest.mark.parametrize(
    ("seen", "kept", "reachable", "verdict"),
    [
        (pod(running()), entry(), True, ""),
        (pod(running()), entry(), False, None),
        (pod(waiting("ContainerCreating")), entry(), True, None),
        (None, entry(exit=Exit(code=0), wanted=False), False, ""),
        (None, entry(exit=Exit(code=3), wanted=False), True, "exited with 3"),
        (pod(waiting("CrashLoopBackOff"), last=ended(3), restarts=4), entry(), True, None),
        (pod(waiting("CrashLoopBackOff"), last=ended(3), restarts=5), entry(), True, "ends again and again"),
    ],
)
def test_one_is_ready_once_it_runs_and_others_can_be_led_to_it(
    seen: SeenPod | None, kept: Entry, reachable: bool, verdict: str | None
) -> None:
    restarts = seen.restarts if seen else 0

    said = statuses.unready(status(kept, seen, NOW), checked=False, reachable=reachable, restarts=restarts)

    assert said == verdict if not verdict else said and said.startswith(verdict)

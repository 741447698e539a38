"""What events mean for a pod that waits."""

from datetime import UTC, datetime

import pytest
from lightkube.models.core_v1 import EventSeries, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event
from tests.providers.kubernetes.pods.specs import pod, running, waiting

from skep.model.host import ContainerState, Health
from skep.model.ids import ContainerId, ReplicaId, Seconds
from skep.providers.kubernetes.pods import statuses, words
from skep.providers.kubernetes.pods.ledger import Entry, Exit
from skep.providers.kubernetes.pods.seen import SeenPod
from skep.providers.kubernetes.pods.troubles import EVERYDAY, Said, Subject, Trouble, said, trouble

CLAIMS = frozenset({"disk-a"})
UNPLACED = Subject("shop-db-0-x", CLAIMS, pod(node=""))
YOUNGER = Subject("shop-db-0-x", CLAIMS, pod(node="", made=2.0))
NOT_YET = Subject("shop-db-0-x", CLAIMS)
PLACED = Subject("shop-db-0-x", CLAIMS, pod(waiting("ContainerCreating")))
PODLESS = Subject("shop-web-3f", pod=None)
ENTRY = Entry(id=ContainerId("c"), replica=ReplicaId("r"), name="shop/web-0", spec="x")


def of_claim(reason: str, message: str = "", name: str = "disk-a", at: float = 1.0) -> Said:
    return Said("PersistentVolumeClaim", name, reason, message, at=at)


def of_pod(reason: str, message: str, uid: str = "uid-web-x", at: float = 1.0) -> Said:
    return Said("Pod", "web-x", reason, message, uid, at)


@pytest.mark.parametrize("reason", sorted(EVERYDAY))
@pytest.mark.parametrize("of", [UNPLACED, NOT_YET, PLACED, PODLESS])
def test_what_is_not_even_read_would_say_nothing(reason: str, of: Subject) -> None:
    known = (
        of_claim(reason, "?"),
        of_pod(reason, "Readiness probe failed: ?"),
        Said("ReplicaSet", "shop-web-3f-6c4", reason, "?"),
        Said("Deployment", "shop-web-3f", reason, "?"),
    )

    assert trouble(known, of) == Trouble()


@pytest.mark.parametrize(
    ("event", "of", "expected"),
    [
        (
            of_claim(
                "ExternalProvisioning",
                'waiting for a volume to be created, either by external provisioner "ebs" or manually',
            ),
            UNPLACED,
            "Its disk waits for ebs, which has not made it: look whether that storage driver runs.",
        ),
        (of_claim("ProvisioningFailed", "no space"), UNPLACED, "Its disk cannot be made: no space"),
        (of_claim("FailedBinding", "none set"), UNPLACED, "Its disk waits for a volume: none set"),
        (of_claim("ProvisioningFailed", "no space"), PLACED, ""),
        (of_claim("ProvisioningFailed", "no space"), YOUNGER, ""),
        (of_claim("ProvisioningFailed", "no space"), NOT_YET, ""),
        (of_claim("ProvisioningFailed", "no space", at=2.0), YOUNGER, "Its disk cannot be made: no space"),
        (of_claim("ProvisioningFailed", "no space", name="disk-b"), UNPLACED, ""),
        (of_claim("WaitForFirstConsumer", "waiting"), UNPLACED, ""),
        (
            of_pod("FailedAttachVolume", 'Multi-Attach error for volume "v"'),
            PLACED,
            "Its disk is still attached to another node: it goes on when the pod there has ended, or when "
            "that node, off for good, is given up: kubectl delete node NAME",
        ),
        (of_pod("FailedAttachVolume", "no such"), PLACED, "Its disk cannot be attached to its node: no such"),
        (of_pod("FailedMount", "bad"), PLACED, "What it mounts cannot be mounted on its node: bad"),
        (of_pod("FailedCreatePodSandBox", "cni"), PLACED, "Its node cannot give it a network: cni"),
        (
            of_pod(
                "FailedCreatePodSandBox",
                'plugin type="calico" failed (add): resource already exists: 10.9.0.7: Address '
                "already assigned in block",
            ),
            PLACED,
            "Its fixed address is another pod's: it starts when that gives it back, or apply it with another "
            "address, best of a pool that nobody has addresses of unasked.",
        ),
        (
            of_pod("AcquireAddressFailed", "AddressOutOfRange"),
            PLACED,
            "Its fixed address is not in any pool of the cluster any more: apply it with another one.",
        ),
        (of_pod("FailedCreatePodSandBox", "no address allocated to pod n/web-x provider ovn"), PLACED, ""),
        (of_pod("FailedMount", "bad", uid="another's"), PLACED, ""),
        (of_pod("Pulling", "Pulling image"), PLACED, ""),
        (
            Said("ReplicaSet", "shop-web-3f-77", "FailedCreate", 'pods "x" is forbidden: exceeded quota: q'),
            PODLESS,
            "The cluster does not let its pod be made: exceeded quota: q",
        ),
        (Said("ReplicaSet", "shop-web-4a-77", "FailedCreate", "is forbidden: no"), PODLESS, ""),
        (Said("Deployment", "shop-web-3f", "ScalingReplicaSet", "Scaled up"), PODLESS, ""),
        (Said("Node", "shop-web-3f", "FailedCreate", "no"), PODLESS, ""),
    ],
)
def test_events_are_told_in_words_if_they_are_about_it(event: Said, of: Subject, expected: str) -> None:
    assert trouble([event], of).why == expected


def test_the_last_word_counts_and_is_not_longer_than_somebody_reads() -> None:
    events = [
        of_claim("ProvisioningFailed", "x" * 1000, at=3.0),
        of_claim("ProvisioningFailed", "first", at=1.0),
        of_claim("WaitForPodScheduled", "later", at=4.0),
    ]

    found = trouble(events, UNPLACED).why

    assert found.startswith("Its disk cannot be made: xxx")
    assert len(found) <= 401


def test_what_a_health_check_answered_is_known_from_events_alone() -> None:
    event = of_pod("Unhealthy", "Readiness probe failed: wget: can't connect\n")
    seen = pod(running(), ready=(False, 99.0))
    checked = Entry(
        **{one: getattr(ENTRY, one) for one in ("id", "replica", "name", "spec")}, checked=Seconds(5)
    )

    found = trouble([event], Subject("shop-web-3f", pod=seen))
    status = statuses.status(checked, seen, 1000.0, found)

    assert found == Trouble(check="wget: can't connect")
    assert (status.health, status.health_output) == (Health.UNHEALTHY, "wget: can't connect")
    assert status.error == ""


def test_new_clusters_date_what_happens_again_elsewhere_than_old_ones() -> None:
    then, later = datetime.fromtimestamp(10, UTC), datetime.fromtimestamp(20, UTC)
    of = ObjectReference(kind="Pod", name="p", uid="u")
    meta = ObjectMeta(name="e", creationTimestamp=then)

    old = Event(involvedObject=of, metadata=meta, reason="R", message=" m\n", lastTimestamp=later)
    new = Event(involvedObject=of, metadata=meta, eventTime=then, series=EventSeries(2, later))
    once = Event(involvedObject=of, metadata=meta)

    assert said(old) == Said("Pod", "p", "R", "m", "u", 20.0)
    assert (said(new).at, said(once).at) == (20.0, 10.0)


@pytest.mark.parametrize(
    ("entry", "seen", "puzzles"),
    [
        (ENTRY, None, True),
        (ENTRY, pod(waiting("ContainerCreating")), True),
        (ENTRY, pod(node=""), True),
        (ENTRY, pod(waiting("ImagePullBackOff")), False),
        (ENTRY, pod(running()), False),
        (ENTRY, pod(phase="Failed", reason="Evicted"), False),
    ],
)
def test_events_are_asked_about_what_does_not_say_itself_why_it_waits(
    entry: Entry, seen: SeenPod | None, puzzles: bool
) -> None:
    assert statuses.puzzling(entry, seen) is puzzles


def test_a_pod_that_waits_says_what_the_scheduler_and_what_events_say() -> None:
    message = "0/2 nodes are available: 2 pod has unbound immediate PersistentVolumeClaims."
    conditions = [{"type": "PodScheduled", "status": "False", "message": message}]
    seen = pod(node="", conditions=conditions)

    status = statuses.status(ENTRY, seen, 1000.0, Trouble(why="Its disk cannot be made: full"))

    assert status.error == (
        "None of 2 nodes can take it: 2 wait for its disk to be made. Its disk cannot be made: full"
    )


def test_of_a_node_that_is_silent_it_is_said_since_when_and_what_helps() -> None:
    plain, with_disks = (words.silence("node-2", 8 * 3600.0, disks=disks) for disks in (False, True))

    status = statuses.status(ENTRY, pod(running()), 1000.0, silence=plain)

    assert status.state is ContainerState.RUNNING
    assert status.error == plain
    assert plain.startswith("Its node node-2 has not answered since 08:00:00 UTC. The cluster makes it again")
    assert with_disks.endswith("is off for good and you say so: kubectl delete node node-2")


def test_what_has_ended_has_no_troubles() -> None:
    gone = Entry(id=ENTRY.id, replica=ENTRY.replica, name="x", spec="x", wanted=False, exit=Exit(code=0))

    assert statuses.status(gone, None, 1000.0, Trouble(why="no")).error == ""

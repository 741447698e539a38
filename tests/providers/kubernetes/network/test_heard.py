"""What is heard of pods: whether names or policies are to change."""

from lightkube.models.core_v1 import PodCondition, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod

from skep.model.ids import NetworkId, ReplicaId
from skep.providers.kubernetes.client.watching import Change
from skep.providers.kubernetes.manifests import network_marks
from skep.providers.kubernetes.network.heard import Heard

R1 = ReplicaId("r1")
MARKS = network_marks({NetworkId("front"): True})


def pod(
    name: str = "a",
    *,
    marks: dict[str, str] = MARKS,
    going: bool = False,
    runs: bool = True,
    whose: str | None = R1,
) -> Pod:
    said = {"skep.dev/replica": whose} if whose else {}
    meta = ObjectMeta(name=name, namespace="n", labels=said | marks)
    if going:
        meta.deletionTimestamp = "2026-01-01T00:00:00Z"  # type: ignore[assignment] # whatever it is
    well = [PodCondition(type="ContainersReady", status="True")]
    return Pod(
        metadata=meta,
        status=PodStatus(phase="Running" if runs else "Pending", podIP="10.64.0.5", conditions=well),
    )


def heard(*changes: Change[Pod]) -> Heard:
    known = Heard()
    for one in changes:
        known.hear(one)
    return known


def test_a_pod_that_runs_is_news_once() -> None:
    known = Heard()

    assert not known.hear(Change(pod(runs=False)))  # its template says where it is
    assert known.hear(Change(pod()))
    assert not known.hear(Change(pod()))
    assert known.standings[R1].pod == "a"


def test_nobodys_pod_is_no_news() -> None:
    assert not Heard().hear(Change(Pod(metadata=ObjectMeta(name="a", namespace="n", labels=MARKS))))


def test_one_that_bears_no_network_is_news_before_it_runs_since_a_policy_must_name_it() -> None:
    known = Heard()

    assert known.hear(Change(pod(marks={}, runs=False)))
    assert not known.bearings[R1].networks


def test_the_end_of_an_older_pod_takes_nothing_from_the_younger_one() -> None:
    known = heard(Change(pod("a")), Change(pod("b")))

    assert not known.hear(Change(pod("a", going=True)))
    assert not known.hear(Change(pod("a"), gone=True))
    assert (known.standings[R1].pod, known.bearings[R1].pod) == ("b", "b")


def test_the_last_one_that_goes_takes_its_names() -> None:
    known = heard(Change(pod()))

    assert known.hear(Change(pod(going=True)))
    known.hear(Change(pod(), gone=True))
    assert not known.standings
    assert not known.bearings


def test_an_older_pod_that_is_gone_stays_named_for_the_one_that_follows() -> None:
    known = heard(Change(pod(marks={})))

    known.hear(Change(pod(marks={}), gone=True))
    assert R1 in known.bearings


def test_whoever_is_hidden_has_a_pod_to_be_shown_again_only_while_it_runs() -> None:
    known = heard(Change(pod()))

    assert known.show(R1, True) is None  # it was
    assert known.show(R1, False) is not None
    assert known.hidden == {R1}
    known.hear(Change(pod(), gone=True))
    assert known.show(R1, True) is None
    assert not known.hidden


def test_a_pod_that_becomes_another_replica_no_longer_stands_for_the_first() -> None:
    known = heard(Change(pod()))
    other = pod(whose="r2")

    assert known.hear(Change(other, pod()))
    assert set(known.standings) == {"r2"}
    known.hear(Change(other, other, gone=True))
    assert not known.standings


def test_a_pod_that_is_no_longer_anybodys_takes_its_names() -> None:
    known = heard(Change(pod()))

    assert known.hear(Change(pod(whose=None), pod()))
    assert not known.standings

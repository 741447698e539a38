"""Which apps run in clusters, and what is refused there."""

import msgspec
import pytest
from tests.control.samples import TENANT, carried_out, known, nothing, plan
from tests.control.simulation import DATA, app, service

from skep.control.plans.homes import home_of, remarks
from skep.control.plans.placing import assign, group_of
from skep.control.plans.plans import Facts
from skep.model.errors import Conflict, Exhausted, NotFound, Unsupported
from skep.model.ids import Bytes, HostName, ZoneName
from skep.model.names import ServiceName
from skep.model.needs import Need
from skep.model.spec import (
    AppExtensions,
    AppSpec,
    EndpointSpec,
    Extensions,
    Mount,
    Placement,
    ReleasePolicy,
)
from skep.schedule.candidates import Candidate
from skep.schedule.placement import Cluster

K8S, OTHER, BOX = ZoneName("k8s"), ZoneName("other"), ZoneName("box")
LACKS = frozenset({Need.HOST_PATHS, Need.VOLUMES})
MEMORY = Bytes(2**20)
PATH = Mount(type="bind", source="/srv", target="/data")


def facts(*clusters: ZoneName, machines: bool = True) -> Facts:
    """One host in each zone, named as the zone; `host-1` is a machine in the zone `box`."""
    zones = {HostName(zone): zone for zone in clusters} | ({HostName("host-1"): BOX} if machines else {})
    return msgspec.structs.replace(nothing(), zones=zones, clusters=dict.fromkeys(clusters, LACKS))


def in_zones(spec: AppSpec, *zones: str) -> AppSpec:
    return msgspec.structs.replace(spec, x_skep=AppExtensions(zones=zones))


def candidates(*clusters: ZoneName) -> Cluster:
    machine = Candidate(host=HostName("host-1"), zone=BOX, cpus=8, memory=Bytes(2**33))
    made = [
        Candidate(
            host=HostName(zone),
            zone=zone,
            cpus=8,
            memory=Bytes(2**33),
            cluster=zone,
            attributes={"node.zone": zone},
        )
        for zone in clusters
    ]
    return Cluster([machine, *made])


def test_an_app_that_names_no_zone_stays_off_clusters() -> None:
    spec = app(web=service(), db=service())

    placed = assign(facts(K8S), spec, TENANT, candidates(K8S), MEMORY)

    assert home_of(facts(K8S), spec) is None
    assert set(placed.values()) == {"host-1"}


def test_an_app_that_names_a_clusters_zone_is_there_with_all_of_its_services() -> None:
    named = app(web=service(x_skep=Extensions(zones=("k8s",))), db=service())
    constrained = app(web=service(placement=Placement(constraints=("node.zone == k8s",))), db=service())

    for spec in (in_zones(app(web=service(), db=service()), "k8s"), named, constrained):
        placed = assign(facts(K8S), spec, TENANT, candidates(K8S), MEMORY)
        assert home_of(facts(K8S), spec) == K8S
        assert set(placed.values()) == {"k8s"}


def test_the_only_cluster_is_taken_unasked_where_there_is_nothing_else() -> None:
    spec = app(web=service())

    assert home_of(facts(K8S, machines=False), spec) == K8S
    with pytest.raises(Conflict, match="skep apply --zone k8s"):
        home_of(facts(K8S, OTHER, machines=False), spec)


def test_a_zone_that_has_no_host_is_said_to_be_none_with_those_that_there_are() -> None:
    spec = app(web=service())

    with pytest.raises(
        NotFound, match=r"'web' is to be in zone nowhere, .* only in box, k8s; see 'skep zone ls'"
    ):
        home_of(facts(K8S), in_zones(spec, "nowhere"))
    assert home_of(facts(K8S), in_zones(spec, "nowhere", "box")) is None


def test_an_app_is_in_one_place() -> None:
    here, there = service(x_skep=Extensions(zones=("k8s",))), service(x_skep=Extensions(zones=("box",)))

    with pytest.raises(Conflict, match="do not reach each other"):
        home_of(facts(K8S), app(web=here, db=there))
    with pytest.raises(Conflict, match="one of the clusters"):
        home_of(facts(K8S, OTHER), in_zones(app(web=service()), "k8s", "other"))


def test_what_a_cluster_does_not_have_is_refused_by_name() -> None:
    spec = in_zones(app(web=service(mounts=(PATH,)), db=service(mounts=(DATA,)), job=service()), "k8s")

    with pytest.raises(Unsupported) as caught:
        home_of(facts(K8S), spec)

    assert "service 'web' mounts the path /srv of a host" in caught.value.message
    assert "service 'db' has a volume at" in caught.value.message
    assert "'job'" not in caught.value.message


def test_the_same_may_be_had_on_machines() -> None:
    assert home_of(facts(K8S), app(web=service(mounts=(PATH,)))) is None


@pytest.mark.parametrize(("home", "wanted"), [("k8s", "box"), ("k8s", "other"), ("host-1", "k8s")])
def test_an_app_stays_where_its_replicas_are(home: str, wanted: str) -> None:
    spec = app(web=service())
    before = known(facts(K8S, OTHER), spec)
    there = carried_out(before, plan(before, spec), spec)
    moved = tuple(msgspec.structs.replace(row, host=HostName(home)) for row in there.replicas)
    there = msgspec.structs.replace(there, replicas=moved)

    assert home_of(there, spec) == ("k8s" if home == "k8s" else None)
    with pytest.raises(Conflict, match="stay where they are"):
        home_of(there, in_zones(spec, wanted))


def test_replicas_that_leave_a_machine_go_to_no_cluster_and_the_other_way_round() -> None:
    spec = app(web=service())
    from_machine = group_of(spec, ServiceName("web"), TENANT, 1, {}, MEMORY)
    from_cluster = group_of(spec, ServiceName("web"), TENANT, 1, {}, MEMORY, "k8s")
    only_cluster = Cluster([Candidate(host=HostName("k8s"), zone=K8S, cpus=8, memory=MEMORY, cluster=K8S)])

    with pytest.raises(Exhausted, match="1 is a cluster"):
        only_cluster.place(from_machine)
    with pytest.raises(Exhausted, match="not in the cluster of zone k8s"):
        candidates().place(from_cluster)
    assert candidates(K8S).cluster_of(HostName("k8s")) == "k8s"
    assert candidates(K8S).cluster_of(HostName("host-1")) == ""


@pytest.mark.parametrize("lacks", [frozenset(), frozenset({Need.SNAPSHOTS})])
def test_where_disks_have_no_snapshots_none_is_planned_and_the_plan_says_so(lacks: frozenset[Need]) -> None:
    before = app(db=service(mounts=(DATA,)), web=service())
    after = app(db=service(mounts=(DATA,), command=("sleep", "2")), web=service(command=("sleep", "2")))
    there = known(
        carried_out(known(nothing(), before), plan(known(nothing(), before), before), before), after
    )
    zones = {row.host: K8S for row in there.replicas}
    facts = msgspec.structs.replace(there, zones=zones, clusters={K8S: lacks})

    made = msgspec.structs.replace(plan(facts, after), in_cluster=True)
    snapshots = {one.service: len(one.snapshots) for one in made.replicas}
    said = list(remarks(made, facts, after))

    assert snapshots == {"db": 0 if lacks else 1, "web": 0}
    assert len(said) == len(lacks)
    assert all("No snapshot of the data is made before (service 'db')" in one for one in said)


def test_a_canary_that_nobody_counts_is_said_to_be_judged_by_health() -> None:
    endpoint = Extensions(endpoints=(EndpointSpec(host="shop.example"),))
    policy = AppExtensions(release=ReleasePolicy(strategy="canary"))
    before = msgspec.structs.replace(app(web=service(x_skep=endpoint)), x_skep=policy)
    after = msgspec.structs.replace(app(web=service(x_skep=endpoint, command=("sleep", "2"))), x_skep=policy)
    first = known(nothing(), before)
    there = known(carried_out(first, plan(first, before), before), after)
    made = plan(there, after)

    (said,) = remarks(msgspec.structs.replace(made, in_cluster=True), there, after)

    assert "service 'web' is judged as a canary by readiness, restarts and health alone" in said
    assert list(remarks(made, there, after)) == []


def test_that_the_cluster_decides_about_redirects_is_said() -> None:
    secured = app(web=service(x_skep=Extensions(endpoints=(EndpointSpec(host="shop.example", tls="shop"),))))
    first = known(nothing(), secured)
    made = plan(first, secured)

    (said,) = remarks(msgspec.structs.replace(made, in_cluster=True), first, secured)

    assert "sent to HTTPS (service 'web') is for what leads requests into" in said
    assert list(remarks(made, first, secured)) == []

"""Which apps can move, and what a plan for that is.  Pure."""

from typing import Any

import msgspec
import pytest
from tests.control.samples import DEFAULT_DISK, TENANT, carried_out, ids, known
from tests.control.simulation import DATA, app, service
from tests.control.test_documents import ancestors
from tests.control.test_homes import BOX, K8S, LACKS, MEMORY, OTHER, candidates, facts, in_zones

from skep.control.flows.catalogue import make_registry
from skep.control.flows.rollouts import move
from skep.control.plans import publications
from skep.control.plans.moves import going, left_in, rehomed, remarks
from skep.control.plans.placing import assign
from skep.control.plans.planning import make_plan
from skep.control.plans.plans import Destination, Facts, Plan
from skep.model.errors import Conflict, Unsupported
from skep.model.ids import AppId, Bytes, DiskId, HostName
from skep.model.spec import (
    AppSpec,
    AppVolume,
    Dependency,
    Extensions,
    Mount,
    NetworkAttachment,
    PublishedPort,
)
from skep.store.disks import LEFT, DiskRow, beside
from skep.store.networks import PublishedRow

TO_K8S, TO_BOX = Destination(zones=(K8S,), cluster=True), Destination(zones=(BOX,))
TO_OTHER = Destination(zones=(OTHER,), cluster=True)
REGISTRY = make_registry()
PORT = (PublishedPort(target=80, published=None),)
SHOP = app(
    web=service(ports=PORT, depends_on={"db": Dependency(condition="service_healthy")}, replicas=2),
    db=service(mounts=(DATA,)),
)


def released(spec: AppSpec = SHOP) -> Facts:
    """On `host-1`, in the zone `box`, or where it asks to be; `k8s` and `other` are clusters with volumes."""
    before = known(facts(K8S, OTHER), spec)
    clusters = dict.fromkeys(before.clusters, LACKS - {"volumes"})
    before = msgspec.structs.replace(before, clusters=clusters)
    placing = assign(before, spec, TENANT, candidates(K8S, OTHER), MEMORY)
    made = make_plan(before, spec, new_id=ids(), placing=placing, default_disk=DEFAULT_DISK)
    return carried_out(before, made, spec)


def planned(there: Facts, spec: AppSpec, destination: Destination, **more: Any) -> tuple[Plan, Facts]:
    found = going(there, rehomed(spec, destination), destination, there.disks.values(), **more)
    placing = assign(found, spec, TENANT, candidates(K8S, OTHER), MEMORY)
    made = make_plan(found, spec, new_id=ids("new"), placing=placing, default_disk=DEFAULT_DISK)
    return msgspec.structs.replace(made, in_cluster=destination.cluster), found


def left(name: str, host: str, *, created: float = 0.0) -> DiskRow:
    disk = DiskId(f"left-on-{host}-{created:g}")
    return DiskRow(
        id=disk,
        tenant_id=TENANT,
        app_id=AppId("app"),
        name=beside(name, disk),
        kind="data",
        size=Bytes(2**20),
        host=HostName(host),
        created=created,
        side=LEFT,
    )


def before(plan: Plan, spec: AppSpec = SHOP) -> dict[str, set[str]]:
    """Of each step of the move the steps that have ended before it begins; the document is checked."""
    return ancestors(REGISTRY.parse(move(plan, spec), "<generated>"))


def test_every_replica_has_a_stand_in_there_and_every_disk_another_one() -> None:
    made, _ = planned(released(), SHOP, TO_K8S)

    assert {one.name for one in made.replicas} == {"web-0", "web-1", "db-0"}
    assert {(one.action, str(one.host)) for one in made.replicas} == {("stand-in", "k8s")}
    (disk,), (new,) = made.moves, made.disks
    assert (disk.name, disk.copied) == ("shop_data", True)
    assert (disk.source_host, disk.target_host) == (HostName("host-1"), HostName("k8s"))
    assert disk.target == new.id != disk.source
    assert made.republish == ("web",)


def test_from_one_cluster_to_another_it_moves_as_it_does_to_the_first() -> None:
    spec = in_zones(SHOP, K8S)

    made, found = planned(released(spec), spec, TO_OTHER)

    assert {str(one.host) for one in made.replicas} == {"other"}
    assert {str(one.previous_host) for one in made.replicas} == {"k8s"}
    (disk,) = made.moves
    assert (disk.source_host, disk.target_host) == (HostName("k8s"), HostName("other"))
    assert "disk-shop_data-compared" in before(made, spec)["db-0.place"]
    assert any("Networks end at a cluster" in one for one in remarks(made, found, spec))


def test_a_new_disk_is_as_large_as_the_one_has_become() -> None:
    there = released()
    grown = {name: msgspec.structs.replace(row, size=Bytes(2**30)) for name, row in there.disks.items()}

    made, _ = planned(msgspec.structs.replace(there, disks=grown), SHOP, TO_K8S)

    assert [disk.size for disk in made.disks] == [2**30]


def test_the_app_stops_when_its_disks_were_copied_and_compared_and_starts_when_changes_followed() -> None:
    steps = before(planned(released(), SHOP, TO_K8S)[0])

    first, last = steps["disk-shop_data-first"], steps["disk-shop_data-last"]
    assert not {name for name in first if name.endswith("-old")}
    assert {"web-0-old", "web-1-old", "db-0-old", "disk-shop_data-compared"} <= last
    assert {"web-0-old", "web-1-old"} <= steps["db-0-old"]
    assert {"web-0-image", "db-0-image", "disk-shop_data-compared"} <= steps["leave-shift"]
    for name in ("db-0.place", "web-0.place", "web-1.place"):
        assert "disk-shop_data-last" in steps[name]
    assert "db-admitted" in steps["web-0.place"]
    assert steps["finish"] == steps.keys() - {"finish"}


def test_an_app_without_disks_is_ready_there_before_it_goes_here() -> None:
    spec = app(web=service(replicas=2))
    steps = before(planned(released(spec), spec, TO_K8S)[0], spec)

    assert {"web-0-ready", "web-1-ready", "web-admitted"} <= steps["leave-shift"]
    assert not any(name.startswith("disk") for name in steps)


def test_with_disks_as_it_left_them_nothing_is_copied() -> None:
    there = released()
    disks = {**there.disks, "x": left("shop_data", "k8s"), "y": left("shop_data", "k8s", created=5)}
    made, _ = planned(msgspec.structs.replace(there, disks=disks), SHOP, TO_K8S, keep_new=False)

    steps = before(made)

    (disk,) = made.moves
    assert (disk.target, disk.copied) == ("left-on-k8s-5", False)
    assert made.disks == ()
    assert "db-0-old" in steps["db-0.place"]


def test_of_what_was_left_only_what_is_over_there_counts() -> None:
    there = released()
    disks = {**there.disks, "x": left("shop_data", "other")}

    made, _ = planned(msgspec.structs.replace(there, disks=disks), SHOP, TO_K8S, keep_new=False)

    assert [disk.copied for disk in made.moves] == [True]
    assert [row.id for row in left_in(disks.values())] == ["left-on-other-0"]


def test_zones_that_a_file_names_for_the_whole_app_follow() -> None:
    spec = in_zones(SHOP, "box")

    assert rehomed(spec, TO_K8S).x_skep.zones == ("k8s",)
    assert rehomed(SHOP, TO_K8S) == SHOP
    alone = app(web=service(x_skep=Extensions(zones=("box",))))
    with pytest.raises(Conflict, match="Service 'web' of app 'shop' asks for zone box by itself"):
        rehomed(alone, TO_K8S)


def test_what_cannot_be_carried_is_refused_by_name() -> None:
    path = Mount(type="bind", source="/srv", target="/data")
    with_disk = app(db=service(mounts=(DATA,)))
    external = msgspec.structs.replace(with_disk, volumes={"data": AppVolume(external="theirs")})
    kept = app(db=service(x_skep=Extensions(keep_system_disk=True)))
    fixed = app(db=service(networks={"default": NetworkAttachment(ipv4_address="10.1.0.9")}))
    for spec, there, words in (
        (app(db=service(mounts=(path,))), None, "the path /srv of its host"),
        (fixed, released(app(db=service())), "has a fixed address, which only one of two sides can have"),
        (kept, None, "keeps its system disk"),
        (external, released(with_disk), "external volume 'theirs'"),
    ):
        with pytest.raises(Conflict, match=words):
            going(there or released(spec), spec, TO_K8S, ())


def test_an_app_that_is_not_whole_or_is_there_already_does_not_move() -> None:
    there = released()
    fewer = msgspec.structs.replace(there, replicas=there.replicas[:-1])
    silent = msgspec.structs.replace(there, silent=frozenset({HostName("host-1")}))
    spare = msgspec.structs.replace(left("shop_old", "host-1"), name="shop_old", side="")

    for found, destination, disks, words in (
        (fewer, TO_K8S, (), "replicas: apply the app first"),
        (silent, TO_K8S, (), "Host host-1, where replicas of app 'shop' are, does not answer"),
        (there, TO_BOX, (), "is in zone 'box' already"),
        (there, TO_K8S, (*there.disks.values(), spare), "No replica of app 'shop' uses shop_old now"),
    ):
        with pytest.raises(Conflict, match=words):
            going(found, SHOP, destination, disks)


def test_what_the_cluster_lacks_is_refused_as_in_every_plan() -> None:
    there = released()
    poor = msgspec.structs.replace(there, clusters={K8S: frozenset({"volumes"})})

    with pytest.raises(Unsupported, match="service 'db' has a volume at /data"):
        planned(poor, SHOP, TO_K8S)


def test_a_port_that_nodes_do_not_offer_becomes_another() -> None:
    there = released()
    (web,) = [row for row in there.services if row.name == "web"]
    row = PublishedRow(
        id="p",
        tenant_id=TENANT,
        service_id=web.id,
        host_ip="0.0.0.0",
        protocol="tcp",
        published=50_000,
        target=80,
    )
    made, _ = planned(msgspec.structs.replace(there, published=(row,)), SHOP, TO_K8S)

    chosen = publications.choose(made, SHOP, TENANT, ())

    assert [one.published for one in chosen.new] == [30_000]
    assert publications.kept(made, SHOP) == {}


def test_people_are_told_what_ends_at_a_cluster() -> None:
    made, found = planned(released(), SHOP, TO_K8S)

    said = list(remarks(made, found, SHOP))

    assert any("Networks end at a cluster" in one for one in said)
    assert any("published ports are at other hosts" in one for one in said)

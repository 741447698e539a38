"""What `apply` decides, from facts alone."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.control.samples import (
    BUSYBOX,
    carried_out,
    disk_row,
    ids,
    known,
    named,
    network_row,
    nothing,
    plan,
    replicas_that_can_stay,
)
from tests.control.simulation import DATA, app, service
from tests.control.strategies import apps

from skep.control.naming import disk_name, network_name
from skep.control.plans.comparing import found
from skep.control.plans.plans import Facts, Plan
from skep.model.errors import Conflict, NotFound
from skep.model.host import ContainerState, ContainerStatus
from skep.model.spec import (
    AppFile,
    AppNetwork,
    AppSpec,
    AppVolume,
    Dependency,
    Extensions,
    FileMount,
    Mount,
    NetworkAttachment,
    PublishedPort,
)
from skep.providers.simulated.images import image


def released(spec: AppSpec) -> Facts:
    """The facts after the first release of the app."""
    before = known(nothing(), spec)
    return carried_out(before, plan(before, spec), spec)


def actions(made: Plan) -> dict[str, str]:
    return {change.name: change.action for change in made.replicas}


def again(facts: Facts, spec: AppSpec, *, force: bool = False) -> Plan:
    return plan(known(facts, spec), spec, force=force, new_id=ids(f"later-{facts.revision}"))


def change_to(facts: Facts, after: AppSpec) -> Plan:
    with replicas_that_can_stay():
        return again(facts, after)


@given(apps())
def test_a_plan_carried_out_leaves_nothing_to_do(spec: AppSpec) -> None:
    assert again(released(spec), spec).empty


@given(apps(), apps())
def test_any_app_can_become_any_other(before: AppSpec, after: AppSpec) -> None:
    facts = released(before)
    made = change_to(facts, after)

    then = carried_out(facts, made, after)

    assert again(then, after).empty
    names = [row.name for row in then.replicas]
    wanted = [f"{name}-{number}" for name, one in after.services.items() for number in range(one.replicas)]
    assert sorted(names) == sorted(wanted)


@given(apps(), apps())
def test_replicas_that_stay_keep_their_identity_and_their_addresses(before: AppSpec, after: AppSpec) -> None:
    facts = released(before)
    rows = {row.name: row for row in facts.replicas}
    ports = {(port.replica_id, port.network_id): port.id for port in facts.ports}

    for change in change_to(facts, after).replicas:
        assert (change.name in rows) == (change.action != "create")
        if change.name in rows:
            assert change.replica == rows[change.name].id
        for port in change.ports:
            assert port.new == ((change.replica, port.network) not in ports)
            assert port.new or port.id == ports[change.replica, port.network]


@given(apps())
def test_no_id_is_given_twice(spec: AppSpec) -> None:
    made = plan(known(nothing(), spec), spec)

    given_out: Counter[str] = Counter([made.release, *made.services.values()])
    given_out.update(net.id for net in made.networks)
    given_out.update(disk.id for disk in made.disks)
    for change in made.replicas:
        given_out.update([change.replica, change.container, change.system_disk or ""])
        given_out.update(port.id for port in change.ports)
    assert given_out.most_common(1)[0][1] == 1


@given(apps(), st.booleans())
def test_a_plan_is_the_same_after_it_was_stored(spec: AppSpec, force: bool) -> None:
    made = again(released(spec), spec, force=force)

    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


def test_a_first_release_makes_everything() -> None:
    spec = app(web=service(replicas=2), db=service(mounts=(DATA,)))

    made = plan(known(nothing(), spec), spec)

    assert actions(made) == {"web-0": "create", "web-1": "create", "db-0": "create"}
    assert [(net.name, net.own) for net in made.networks] == [("default", False)]
    assert [disk.name for disk in made.disks] == ["shop_data"]
    assert made.new_services == ("web", "db")
    assert (made.revision, made.base_version) == (1, 0)


def test_scaling_touches_only_what_comes_and_goes() -> None:
    facts = released(app(web=service(replicas=2)))

    assert actions(again(facts, app(web=service(replicas=3)))) == {
        "web-0": "keep",
        "web-1": "keep",
        "web-2": "create",
    }
    assert actions(again(facts, app(web=service(replicas=1)))) == {"web-0": "keep", "web-1": "remove"}
    assert actions(again(facts, app(web=service(replicas=0)))) == {"web-0": "remove", "web-1": "remove"}


def test_a_renamed_service_is_another_one() -> None:
    made = again(released(app(web=service(), db=service())), app(front=service(), db=service()))

    assert actions(made) == {"front-0": "create", "db-0": "keep", "web-0": "remove"}
    assert (made.new_services, len(made.removed_services)) == (("front",), 1)


def test_a_change_names_what_changed() -> None:
    made = again(released(app(web=service())), app(web=service(environment={"A": "1"}, user="1000")))

    (change,) = made.replicas
    assert (change.action, change.reason) == ("update", "changed: environment, user")
    assert change.previous is not None
    assert change.previous != change.container


def test_another_image_under_the_same_name_is_a_change() -> None:
    spec = app(web=service())

    made = plan(known(released(spec), spec, image("c" * 64, 1)), spec)

    assert made.replicas[0].reason == "its image, files or networks changed"


def test_an_image_that_is_not_here_is_pulled_and_its_replicas_are_made_anew() -> None:
    spec = app(web=service())
    facts = msgspec.structs.replace(released(spec), images={})

    made = plan(facts, spec)

    assert made.pulls == {"web": "busybox:1"}
    assert made.replicas[0].reason == "its image has to be pulled"


def test_the_content_of_a_config_counts() -> None:
    def with_config(digest: str) -> AppSpec:
        spec = app(web=service(configs=(FileMount(source="c", target="/c"),)))
        return msgspec.structs.replace(spec, configs={"c": AppFile(digest=digest)})

    facts = released(with_config("sha256:1"))

    assert again(facts, with_config("sha256:1")).empty
    assert actions(again(facts, with_config("sha256:2"))) == {"web-0": "update"}


def test_published_ports_change_without_new_containers() -> None:
    facts = released(app(web=service(ports=(PublishedPort(target=80, published=8080),))))
    other = app(web=service(ports=(PublishedPort(target=80, published=8081),)))

    made = again(facts, other)

    assert actions(made) == {"web-0": "keep"}
    assert made.republish == ("web",)
    assert [row.published for row in made.published_before] == [8080]
    assert again(facts, app(web=service())).republish == ("web",)


def test_what_touches_no_replica_is_released_all_the_same() -> None:
    facts = released(app(web=service(), db=service()))
    later = app(web=service(depends_on={named("db"): Dependency()}), db=service())

    made = again(facts, later)

    assert set(actions(made).values()) == {"keep"}
    assert not made.empty


def test_force_recreate_makes_all_containers_anew() -> None:
    spec = app(web=service(replicas=2))

    made = again(released(spec), spec, force=True)

    assert {(change.action, change.reason) for change in made.replicas} == {("update", "asked for")}


def test_a_stopped_replica_is_started_and_a_changed_one_knows_that_it_was_stopped() -> None:
    facts = released(app(web=service()))
    stopped = msgspec.structs.replace(
        facts, replicas=tuple(msgspec.structs.replace(row, desired="stopped") for row in facts.replicas)
    )

    started = again(stopped, app(web=service()))
    changed = again(stopped, app(web=service("sleep", "9")))

    assert actions(started) == {"web-0": "start"}
    assert [change.before for change in (*started.replicas, *changed.replicas)] == ["stopped", "stopped"]


def test_how_a_replica_was_found() -> None:
    (row,) = released(app(web=service())).replicas
    ended = ContainerStatus(id=row.container_id, replica=row.id, state=ContainerState.EXITED, exit_code=0)

    assert found(row) == "running"
    assert found(msgspec.structs.replace(row, status=ended)) == "ended"
    assert found(msgspec.structs.replace(row, desired="stopped", status=ended)) == "stopped"


def test_the_system_disk_is_kept_where_the_service_says_so() -> None:
    keep = Extensions(keep_system_disk=True)
    facts = released(app(web=service(x_skep=keep), db=service()))
    before = {row.name: facts.containers[row.container_id].system_disk for row in facts.replicas}

    made = again(facts, app(web=service(x_skep=keep), db=service()), force=True)

    web, db = made.replicas
    assert (web.system_disk, web.new_system_disk) == (before["web-0"], None)
    assert db.system_disk != before["db-0"]
    assert db.new_system_disk is not None


def test_the_size_of_a_system_disk_can_be_chosen() -> None:
    spec = app(web=service(x_skep=Extensions(system_disk=4096)))

    assert plan(known(nothing(), spec), spec).replicas[0].new_system_disk == 4096


def test_stateful_services_have_a_disk_for_each_replica_others_share() -> None:
    shared = app(db=service(mounts=(DATA,), replicas=2))
    apart = app(db=service(mounts=(DATA,), replicas=2, x_skep=Extensions(stateful=True)))

    assert [disk.name for disk in plan(known(nothing(), shared), shared).disks] == ["shop_data"]
    assert [disk.name for disk in plan(known(nothing(), apart), apart).disks] == [
        "shop_data_db-0",
        "shop_data_db-1",
    ]


def test_anonymous_volumes_belong_to_one_replica_and_one_place() -> None:
    one, other = Mount(type="volume", target="/a"), Mount(type="volume", target="/b")
    spec = app(web=service(replicas=2, mounts=(one, other)))

    names = {disk_name("shop", "web", number, mount, spec) for number in (0, 1) for mount in (one, other)}

    assert len(names) == 4
    assert len(plan(known(nothing(), spec), spec).disks) == 4


def test_an_external_volume_must_be_there_and_is_not_made() -> None:
    spec = msgspec.structs.replace(
        app(db=service(mounts=(DATA,))), volumes={"data": AppVolume(external="kept")}
    )
    facts = known(nothing(), spec)

    with pytest.raises(NotFound, match="'kept'"):
        plan(facts, spec)
    made = plan(msgspec.structs.replace(facts, disks={"kept": disk_row("kept", "d")}), spec)

    assert (made.disks, made.replicas[0].disks) == ((), ("kept",))


def test_an_external_network_must_be_there_and_is_not_made() -> None:
    spec = msgspec.structs.replace(
        app(web=service(networks={"out": NetworkAttachment()})),
        networks={"out": AppNetwork(external="shared")},
    )
    facts = known(nothing(), spec)

    with pytest.raises(NotFound, match="'shared'"):
        plan(facts, spec)
    made = plan(msgspec.structs.replace(facts, networks={"shared": network_row("shared")}), spec)

    assert (made.networks, made.replicas[0].ports[0].network) == ((), "net-shared")


def test_networks_are_named_after_their_app_but_for_the_tenants_flat_one() -> None:
    spec = msgspec.structs.replace(
        app(web=service()), networks={"back": AppNetwork(), "default": AppNetwork()}
    )
    own = msgspec.structs.replace(spec, networks={"default": AppNetwork(subnet="10.9.0.0/24")})

    assert network_name("shop", "default", spec) == "default"
    assert network_name("shop", "back", spec) == "shop_back"
    assert network_name("shop", "default", own) == "shop_default"


def test_the_default_route_goes_through_the_network_of_highest_priority() -> None:
    nets = {"a": NetworkAttachment(), "b": NetworkAttachment(priority=5, aliases=("front",))}
    spec = msgspec.structs.replace(
        app(web=service(networks=nets)), networks={"a": AppNetwork(), "b": AppNetwork()}
    )

    made = plan(known(nothing(), spec), spec)

    by_id = {net.id: net.name for net in made.networks}
    ports = made.replicas[0].ports
    assert [(by_id[port.network], port.position) for port in ports] == [("shop_b", 0), ("shop_a", 1)]
    assert ports[0].names == ("web-0", "web", "front")


def on(**places: NetworkAttachment) -> AppSpec:
    nets = {name: AppNetwork() for name in ("a", "b", "c")}
    return msgspec.structs.replace(app(web=service(networks=places)), networks=nets)


def test_a_replica_may_gain_networks_behind_those_it_has_and_lose_the_last() -> None:
    facts = released(on(b=NetworkAttachment()))

    more = again(facts, on(a=NetworkAttachment(), b=NetworkAttachment())).replicas[0].ports
    fewer = again(released(on(a=NetworkAttachment(), b=NetworkAttachment())), on(a=NetworkAttachment()))

    assert [(port.position, port.new) for port in more] == [(0, False), (1, True)]
    assert [(port.position, port.new) for port in fewer.replicas[0].ports] == [(0, False)]


@pytest.mark.parametrize(
    "places",
    [
        {"b": NetworkAttachment()},
        {"a": NetworkAttachment(), "b": NetworkAttachment(priority=9)},
        {"c": NetworkAttachment(), "b": NetworkAttachment()},
        {"a": NetworkAttachment(ipv4_address="10.1.2.3"), "b": NetworkAttachment()},
        {"a": NetworkAttachment(mac_address="02:00:00:00:00:99"), "b": NetworkAttachment()},
    ],
)
def test_a_replica_whose_first_networks_or_addresses_change_must_be_another_one(
    places: dict[str, NetworkAttachment],
) -> None:
    facts = released(on(a=NetworkAttachment(), b=NetworkAttachment()))

    with pytest.raises(Conflict, match="web-0"):
        again(facts, on(**places))


def test_the_plan_carries_the_images_it_found() -> None:
    spec = app(web=service())

    assert plan(known(nothing(), spec), spec).images == {named("web"): BUSYBOX}

"""How many replicas a service has, and which: decisions from rows alone, and on a simulated host."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.control.installation import Installation, installation
from tests.control.samples import carried_out, ids, known, nothing, plan
from tests.control.simulation import DATA, app, service

from skep.control.plans.victims import ordinals, victims
from skep.model.errors import InvalidInput, NotFound
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import AppId, ContainerId, HostName, ReplicaId, ServiceId, TenantId, ZoneName
from skep.model.spec import Autoscale, Extensions, Mount, ServiceSpec
from skep.store.replicas import ReplicaRow

ZONES = {HostName(f"host-{number}"): ZoneName(f"zone-{number // 2}") for number in range(4)}
STATEFUL = Extensions(stateful=True)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


def replica(ordinal: int, host: int = 0, *, health: Health = Health.NONE, created: float = 0.0) -> ReplicaRow:
    container = ContainerId(f"container-{ordinal}")
    status = ContainerStatus(
        id=container, replica=ReplicaId(f"r{ordinal}"), state=ContainerState.RUNNING, health=health
    )
    return ReplicaRow(
        id=status.replica,
        tenant_id=TenantId("tenant"),
        app_id=AppId("app"),
        service_id=ServiceId("service"),
        service="web",
        ordinal=ordinal,
        host=HostName(f"host-{host}"),
        container_id=container,
        desired="running",
        status=status,
        created=created,
    )


def gone(rows: list[ReplicaRow], count: int, wanted: ServiceSpec | None = None) -> list[int]:
    return [row.ordinal for row in victims(wanted or service(), rows, count, ZONES)]


def test_who_does_not_serve_goes_first() -> None:
    sick = replica(0, 1, health=Health.UNHEALTHY)
    halted = msgspec.structs.replace(replica(1, 2), desired="stopped")

    assert sorted(gone([sick, halted, replica(2), replica(3)], 2)) == [0, 1]


def test_replicas_of_a_silent_host_do_not_serve() -> None:
    rows = [replica(0, 1), replica(1), replica(2)]

    assert victims(service(), rows, 1, ZONES, {HostName("host-1")}) == rows[:1]


def test_what_is_left_is_spread_over_zones_then_over_hosts() -> None:
    rows = [replica(0, 0), replica(1, 0), replica(2, 1), replica(3, 2)]

    assert gone(rows, 1) == [1]
    assert sorted(gone(rows, 2)) == [1, 2]


def test_the_newest_goes_where_nothing_else_speaks_for_one() -> None:
    assert gone([replica(0, created=2.0), replica(1, created=1.0), replica(2, created=1.0)], 2) == [0, 2]


@pytest.mark.parametrize(
    "wanted",
    [
        service(mounts=(DATA,), x_skep=STATEFUL),
        service(mounts=(Mount(type="volume", target="/own"),)),
    ],
    ids=["stateful", "anonymous volume"],
)
def test_with_own_data_the_highest_go_however_they_are(wanted: ServiceSpec) -> None:
    rows = [replica(0, health=Health.UNHEALTHY), replica(1), replica(2)]

    assert gone(rows, 2, wanted) == [1, 2]


def test_holes_are_filled_first() -> None:
    wanted = service(replicas=4)

    assert ordinals(wanted, [replica(1), replica(3)]) == [0, 1, 2, 3]
    assert ordinals(wanted, []) == [0, 1, 2, 3]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(Health)), st.integers(0, 2)), max_size=12),
    st.integers(0, 14),
)
def test_a_service_has_as_many_as_it_wants_and_keeps_all_it_can(
    members: list[tuple[int, Health, int]], count: int
) -> None:
    rows = [
        replica(number * 2, host, health=health, created=float(created))
        for number, (host, health, created) in enumerate(members)
    ]

    chosen = ordinals(service(replicas=count), rows, ZONES)

    assert len(chosen) == len(set(chosen)) == count
    assert len({row.ordinal for row in rows} & set(chosen)) == min(len(rows), count)


def test_a_plan_for_an_app_with_holes_leaves_the_others_alone() -> None:
    spec = app(web=service(replicas=3))
    facts = carried_out(known(nothing(), spec), plan(known(nothing(), spec), spec), spec)
    holed = msgspec.structs.replace(facts, replicas=tuple(r for r in facts.replicas if r.ordinal != 1))

    same = plan(holed, app(web=service(replicas=2)), new_id=ids("same"))
    more = plan(holed, spec, new_id=ids("more"))

    assert [(change.name, change.action) for change in same.replicas] == [
        ("web-0", "keep"),
        ("web-2", "keep"),
    ]
    assert [change.name for change in more.replicas if change.action == "create"] == ["web-1"]


async def test_scaling_changes_the_number_and_nothing_else(house: Installation) -> None:
    control, admin = house.control, house.admin
    await house.finish(await control.apps.apply(admin, app(web=service(replicas=2), db=service())))
    before = {row.name: row for row in await control.replicas.list(admin, "shop")}

    await house.finish(await control.scaling.scale(admin, "shop", {"web": 4}))
    await house.finish(await control.scaling.scale(admin, "shop", {"web": 1, "db": 2}))

    after = {row.name: row for row in await control.replicas.list(admin, "shop")}
    assert sorted(after) == ["db-0", "db-1", "web-0"]
    assert after["web-0"].started == before["web-0"].started
    found = await control.releases.diff(admin, "shop", 1)
    assert [(one.path, one.after) for one in found.differences] == [
        ("services.db.replicas", 2),
        ("services.web.replicas", None),
    ]
    assert (await control.releases.list(admin, "shop"))[0].note == "scale db=2, web=1"


async def test_what_cannot_be_scaled_says_why(house: Installation) -> None:
    bounds = Extensions(scale=Autoscale(min=2, max=4, memory=50))
    spec = app(web=service(replicas=2, x_skep=bounds), worker=service())
    await house.finish(await house.control.apps.apply(house.admin, spec))
    scale = house.control.scaling.scale

    with pytest.raises(NotFound, match="did you mean 'worker'"):
        await scale(house.admin, "shop", {"workr": 1})
    with pytest.raises(InvalidInput, match="between 2 and 4"):
        await scale(house.admin, "shop", {"web": 1})
    assert (await scale(house.admin, "shop", {"worker": 1})).run is None

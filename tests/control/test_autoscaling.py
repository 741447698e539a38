"""How many replicas a service has by what it does: pure decisions, and passes over a simulated host."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.control.installation import Clock, Installation, installation
from tests.control.simulation import app, service
from tests.control.test_scaling import replica

from skep.control.apps.autoscaling import Opinion, Seen, decide, in_words, kept, opinion
from skep.control.apps.measuring import Look, seen
from skep.control.reconcilers.autoscaler import Autoscaler
from skep.flow import RunId
from skep.model.edge import EndpointTraffic
from skep.model.errors import InvalidInput
from skep.model.host import ContainerUsage
from skep.model.ids import AppId, Bytes, EndpointId, HostName, ServiceId, TenantId
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, Autoscale, EndpointSpec, Extensions, Resources
from skep.providers.simulated import SimulatedEdge
from skep.store.endpoints import EndpointRow

CPU = Autoscale(min=1, max=10, cpu=50)
WEB = ServiceName("web")
MEBI = 1024**2


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


def wanted(policy: Autoscale, **seen: object) -> int:
    return opinion(policy, Seen(**seen), 0.0).replicas  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cpu", "replicas"),
    [(100.0, 8), (60.0, 5), (54.0, 4), (46.0, 4), (44.0, 4), (25.0, 2), (1.0, 1)],
)
def test_replicas_follow_the_ratio_of_seen_to_target(cpu: float, replicas: int) -> None:
    assert wanted(CPU, replicas=4, measured=4, cpu=cpu) == replicas


def test_the_target_that_asks_for_most_wins_and_says_so() -> None:
    policy = Autoscale(max=10, cpu=50, requests=10, latency=0.2)

    found = opinion(policy, Seen(replicas=2, measured=2, cpu=50, requests=60, latency=0.2), 0.0)

    assert (found.replicas, found.why) == (4, "30.0 requests/s of 10 for each")


def test_what_is_unknown_never_turns_more_into_fewer() -> None:
    assert wanted(CPU, replicas=4, measured=1, cpu=90.0) == 4
    assert wanted(CPU, replicas=4, measured=2, cpu=20.0) == 3
    assert wanted(CPU, replicas=4) == 4


def test_a_service_that_nobody_asks_needs_the_fewest_whatever_its_latency_was() -> None:
    assert wanted(Autoscale(min=2, max=8, latency=0.2), replicas=6, latency=0.0) == 2
    assert wanted(Autoscale(min=2, max=8, latency=0.2), replicas=6) == 6


def test_growth_is_bounded_in_one_step_and_by_the_most() -> None:
    assert wanted(CPU, replicas=1, measured=1, cpu=5000.0) == 4
    assert wanted(CPU, replicas=6, measured=6, cpu=5000.0) == 10


def test_nothing_runs_without_requests_and_a_request_brings_it_back() -> None:
    policy = Autoscale(min=0, max=3, requests=10, idle=60)

    assert wanted(policy, replicas=1, requests=0.0, quiet=59.0) == 1
    assert wanted(policy, replicas=1, requests=0.0, quiet=60.0) == 0
    assert wanted(policy, replicas=0) == 0
    assert wanted(policy, replicas=0, called=True) == 1
    assert decide(policy, 0, [Opinion(time=0, replicas=0), Opinion(time=1, replicas=1)], 1.0).replicas == 1


def test_more_and_fewer_must_seem_right_all_through_their_cooldown() -> None:
    policy = Autoscale(max=10, cpu=50, up_cooldown=15, down_cooldown=300)
    rising = [Opinion(time=float(at), replicas=count) for at, count in ((0, 2), (10, 5), (20, 4))]
    falling = [Opinion(time=float(at), replicas=count) for at, count in ((0, 5), (100, 3), (290, 2))]

    assert decide(policy, 2, rising, 14.0).replicas == 2
    assert decide(policy, 2, rising, 20.0).replicas == 4
    assert decide(policy, 5, falling, 290.0).replicas == 5
    assert decide(policy, 5, falling, 350.0).replicas == 3


@given(
    st.integers(0, 20),
    st.lists(st.tuples(st.floats(0, 500), st.integers(0, 20)), min_size=1),
    st.integers(0, 3),
)
def test_a_decision_is_never_beyond_what_seemed_right(
    replicas: int, opinions: list[tuple[float, int]], least: int
) -> None:
    policy = Autoscale(min=least, max=20)
    held = [Opinion(time=at, replicas=count) for at, count in sorted(opinions)]

    found = decide(policy, replicas, held, 500.0).replicas

    assert found == replicas or found in {one.replicas for one in held}


def test_what_hosts_counted_between_two_looks_is_what_a_service_did() -> None:
    """Two hosts have the endpoint; the second one's count began anew."""
    row = EndpointRow(
        id=EndpointId("e"),
        tenant_id=TenantId("t"),
        app_id=AppId("app"),
        service_id=ServiceId("service"),
        host="shop.localhost",
        path="/",
        spec=EndpointSpec(host="shop.localhost"),
        created=0.0,
    )
    wanted = service(resources=Resources(cpus=0.5), x_skep=Extensions(scale=CPU))
    container = replica(0).container_id

    def look(time: float, seconds: float, *requests: int) -> Look:
        counted = {
            (HostName(f"host-{number}"), row.id, 1): EndpointTraffic(
                endpoint=row.id, revision=1, requests=count, response_time=200.0
            )
            for number, count in enumerate(requests)
        }
        used = ContainerUsage(cpu_seconds=seconds, memory=Bytes(25), memory_limit=Bytes(100), pids=1)
        return Look(time=time, usage={container: used}, traffic=counted)

    found = seen(wanted, [replica(0)], [row], look(0.0, 1.0, 100, 500), look(10.0, 3.0, 170, 30))

    assert (found.cpu, found.memory, found.measured) == (40.0, 25.0, 1)
    assert found.requests == 10.0
    assert found.latency == pytest.approx(0.2)
    assert seen(wanted, [replica(0)], [row], look(0.0, 1.0, 100), look(10.0, 3.0, 100)).latency == 0.0
    assert seen(wanted, [replica(0)], [row], None, look(10.0, 3.0, 100)).latency is None


def test_an_apply_keeps_the_number_within_its_bounds() -> None:
    def scaled(count: int, least: int = 2, most: int = 6) -> AppSpec:
        policy = Autoscale(min=least, max=most, cpu=50)
        return app(web=service(replicas=count, x_skep=Extensions(scale=policy)), db=service(replicas=3))

    assert kept(scaled(1), scaled(5)).services[WEB].replicas == 5
    assert kept(scaled(1, most=4), scaled(5)).services[WEB].replicas == 4
    assert kept(scaled(1), None).services[WEB].replicas == 2
    assert kept(scaled(1), scaled(5)).services[ServiceName("db")].replicas == 3
    assert in_words(CPU) == "1 to 10 replicas by cpu 50%"


async def test_a_busy_service_grows_and_a_file_does_not_shrink_it(house: Installation) -> None:
    """A simulated container uses 1 MiB: a quarter of its limit, where a tenth is wanted."""
    control, admin, clock = house.control, house.admin, Clock(1000.0)
    policy = Autoscale(max=3, memory=10, up_cooldown=10)
    web = service(resources=Resources(memory=4 * MEBI), x_skep=Extensions(scale=policy))
    await house.finish(await control.apps.apply(admin, app(web=web)))
    autoscaler = Autoscaler(
        database=house.database,
        flows=house.flows,
        directory=house.directory,
        scaling=control.scaling,
        monotonic=clock,
    )

    for _ in range(4):
        await autoscaler.look()
        clock.time += 5.0
    for run in await house.flows.list(active=True):
        await house.flows.wait(RunId(run.id), 30)
    again = await control.apps.apply(admin, app(web=web))

    [last, _] = await control.releases.list(admin, "shop")
    assert (await control.apps.show(admin, "shop")).app.replicas == 3
    assert (last.created_by, last.note) == ("(autoscaler)", "scale web=3: memory 25% of 10%")
    assert again.run is None


async def test_a_request_that_waits_wakes_a_service_that_is_asleep_but_not_one_that_was_stopped(
    house: Installation,
) -> None:
    control, admin = house.control, house.admin
    policy = Extensions(
        scale=Autoscale(min=0, max=3), endpoints=(EndpointSpec(host="shop.localhost", port=80),)
    )
    await house.finish(await control.apps.apply(admin, app(web=service(replicas=1, x_skep=policy))))
    await house.finish(await control.apps.stop(admin, "shop"))
    edge = house.host.edge
    assert isinstance(edge, SimulatedEdge)
    ((stopped,),) = (one.endpoints for one in edge.told.values())
    await house.finish(await control.apps.start(admin, "shop"))
    await house.finish(await control.scaling.scale(admin, "shop", {"web": 0}))
    ((asleep,),) = (one.endpoints for one in edge.told.values())
    listed = await control.endpoints.list(admin)
    autoscaler = Autoscaler(
        database=house.database,
        flows=house.flows,
        directory=house.directory,
        scaling=control.scaling,
        monotonic=Clock(1000.0),
    )

    await autoscaler.look()
    assert await house.flows.list(active=True) == []
    edge.counts[asleep.id, 0] = EndpointTraffic(endpoint=asleep.id, revision=0, waiting=1)
    await autoscaler.look()
    for run in await house.flows.list(active=True):
        await house.flows.wait(RunId(run.id), 30)

    assert (stopped.hold, asleep.hold, asleep.servers) == (False, True, ())
    assert [(one.service, one.replicas) for one in listed] == [("web", ())]
    assert (await control.apps.show(admin, "shop")).app.replicas == 1


async def test_targets_that_nothing_can_be_measured_by_are_refused(house: Installation) -> None:
    by_cpu = Extensions(scale=Autoscale(cpu=50))
    to_zero = Extensions(scale=Autoscale(min=0, memory=50))

    with pytest.raises(InvalidInput, match="percent of a limit"):
        await house.control.apps.apply(house.admin, app(web=service(x_skep=by_cpu)))
    with pytest.raises(InvalidInput, match="without an endpoint"):
        await house.control.apps.apply(house.admin, app(web=service(x_skep=to_zero)))

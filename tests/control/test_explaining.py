"""What a plan means: pure decisions, and that a stale one is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.samples import HOST, carried_out, ids, known, nothing, plan
from tests.control.simulation import DATA, app, service

from skep.control.apps import explaining
from skep.control.plans.plans import Facts
from skep.model.errors import Conflict, InvalidInput
from skep.model.ids import Bytes
from skep.model.spec import AppSpec, EndpointSpec, Extensions, PublishedPort, Resources, UpdateConfig
from skep.model.views.plans import ServicePlan
from skep.providers.simulated.images import image
from skep.schedule.candidates import Candidate

MEMORY = Bytes(64 * 1024**2)
SHOP = Extensions(endpoints=(EndpointSpec(host="shop.localhost"),))
OTHER = {"MODE": "other"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


def released(spec: AppSpec) -> Facts:
    before = known(nothing(), spec)
    return carried_out(before, plan(before, spec), spec)


def explained(before: AppSpec, after: AppSpec) -> dict[str, ServicePlan]:
    facts = known(released(before), after)
    made = plan(facts, after, new_id=ids("later"))
    return {one.service: one for one in explaining.services(made, facts, after)}


def test_services_that_are_left_alone_are_not_told_of() -> None:
    before = app(web=service(), db=service(mounts=(DATA,)))
    after = app(web=service(environment=OTHER), db=service(mounts=(DATA,)))

    [web] = explained(before, after).values()

    assert (web.service, web.restarts, web.before, web.after) == ("web", ("web-0",), 1, 1)


def test_replacing_the_only_replica_in_its_place_lets_requests_fail() -> None:
    web = explained(app(web=service()), app(web=service(environment=OTHER)))["web"]

    assert "only replica" in web.interruption
    assert web.strategy == "rolling stop-first, 1 at a time"


def test_replacing_some_of_many_at_a_time_does_not() -> None:
    some = explained(app(web=service(replicas=3)), app(web=service(replicas=3, environment=OTHER)))
    everything = service(replicas=3, environment=OTHER, update=UpdateConfig(parallelism=0))
    all_of_them = explained(app(web=service(replicas=3)), app(web=everything))

    assert some["web"].interruption == ""
    assert "at the same time" in all_of_them["web"].interruption
    assert all_of_them["web"].strategy.endswith("all at a time")


def test_what_goes_interrupts_and_names_what_led_to_it() -> None:
    old = service(x_skep=SHOP, ports=(PublishedPort(target=80, published=8080),))

    found = explained(app(web=service(), old=old), app(web=service(replicas=0)))

    assert found["old"].interruption == "it is removed"
    assert found["old"].touches == ("shop.localhost/", "port 8080/tcp")
    assert found["web"].interruption == "it has no replica afterwards"


def test_growing_restarts_nothing_and_is_counted() -> None:
    before = app(web=service(resources=Resources(cpus=0.5, memory=4 * MEMORY)))
    after = app(web=service(replicas=3, resources=Resources(cpus=0.5, memory=4 * MEMORY)))
    facts = known(released(before), after)
    made = plan(facts, after, new_id=ids("later"))
    hosts = [Candidate(host=HOST, zone="z", cpus=4, memory=Bytes(64 * MEMORY), promised_cpus=0.5)]

    [need] = explaining.peak(made, after, hosts, MEMORY, free=True)
    [told] = explaining.peak(made, after, hosts, MEMORY, free=False)
    change = explaining.resources(before, after, MEMORY, 0.04, 0.01)

    assert (need.cpus, need.memory, need.cpus_free) == (1.0, 8 * MEMORY, 3.5)
    assert (told.cpus, told.cpus_free, told.memory_free) == (1.0, None, None)
    assert (change.replicas, change.cpus, change.memory) == (2, 1.0, 8 * MEMORY)
    assert change.cost == pytest.approx(0.045)
    assert explaining.resources(before, after, MEMORY, None, None).cost is None
    assert explained(before, after)["web"].restarts == ()


def test_steps_are_told_in_groups_that_need_only_those_before() -> None:
    steps = "{a: {use: x}, b: {use: x, after: [a]}, c: {use: x}, d: {use: x, after: [b, c]}}"

    assert explaining.order(f"steps: {steps}") == (("a", "c"), ("b",), ("d",))


def test_a_mark_tells_plans_apart_that_do_something_else() -> None:
    spec = app(web=service(environment=OTHER))
    facts = released(app(web=service()))
    one, same = (plan(known(facts, spec), spec, new_id=ids(prefix)) for prefix in "ab")
    other = plan(known(facts, spec, image("c" * 64, 5)), spec, new_id=ids())

    marks = [explaining.mark(made, spec, (), 1) for made in (one, same, other)]

    assert marks[0] == marks[1] != marks[2]
    assert explaining.in_force_when(marks[0]) == (facts.version, 1)
    with pytest.raises(InvalidInput):
        explaining.in_force_when("1.x.2")


async def test_a_plan_is_carried_out_as_shown_or_not_at_all(house: Installation) -> None:
    control, admin = house.control, house.admin
    await house.finish(await control.apps.apply(admin, app(web=service())))
    wanted = app(web=service(environment=OTHER))
    shown = await control.apps.plan(admin, wanted)
    await house.finish(await control.scaling.scale(admin, "shop", {"web": 2}))

    with pytest.raises(Conflict, match=r"since then app 'shop' became revision 2 by admin \(scale web=2\)"):
        await control.apps.apply(admin, wanted, mark=shown.mark)

    again = await control.apps.plan(admin, wanted)
    await house.finish(await control.apps.apply(admin, wanted, mark=again.mark))
    assert [one.path for one in again.differences] == [
        "services.web.environment",
        "services.web.replicas",
    ]
    assert again.order[0] == ("begin",)
    assert again.order[-1] == ("finish",)
    assert msgspec.json.decode(msgspec.json.encode(again), type=type(again)) == again

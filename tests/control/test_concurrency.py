"""Several changes at the same moment: each is done or refused, none is lost, nothing is promised twice."""

import asyncio

import pytest
from tests.machines import Machine, app, fetch, service

from skep.control.callers import Caller, Role
from skep.model.errors import Conflict
from skep.model.spec import AppSpec, HealthCheck, PublishedPort
from skep.model.views.base import Accepted

pytestmark = pytest.mark.root

STUBBORN = ("sh", "-c", "trap '' TERM; while true; do sleep 0.1; done")


async def member(cloud: Machine, tenant: str) -> Caller:
    await cloud.control.tenants.create(cloud.admin, tenant)
    await cloud.control.users.create(cloud.admin, f"{tenant}-user", tenant, Role.MEMBER)
    token = await cloud.control.tokens.create(cloud.admin, "laptop", user=f"{tenant}-user")
    return await cloud.control.auth.authenticate(token.secret)


async def test_two_tenants_apply_apps_of_one_name_at_the_same_moment(cloud: Machine) -> None:
    callers = [await member(cloud, "acme"), await member(cloud, "bolt")]
    spec = app(web=service(replicas=2, ports=(PublishedPort(target=80),)))

    accepted = await asyncio.gather(*(cloud.control.apps.apply(caller, spec) for caller in callers))
    await asyncio.gather(*(cloud.finish(item) for item in accepted))

    ports = set()
    for caller in callers:
        view = (await cloud.control.apps.show(caller, "shop")).app
        assert (view.state, view.running) == ("running", 2)
        ports.add(int(view.urls[0].rsplit(":", 1)[1]))
    assert len(ports) == 2
    assert [await fetch(port) for port in sorted(ports)] == ["hello\n"] * 2


async def test_one_app_applied_many_times_at_the_same_moment_is_made_once(cloud: Machine) -> None:
    results = await attempts(cloud, [app(web=service(replicas=2))] * 5)

    for accepted in results:
        await cloud.finish(accepted)
    assert len(results) == 1
    assert (await cloud.control.apps.show(cloud.admin, "shop")).app.running == 2


async def test_the_first_apps_of_a_tenant_make_its_network_together(cloud: Machine) -> None:
    """Each is planned before the other has made it."""
    caller = await member(cloud, "acme")
    specs = [app(name, web=service("sleep", "1000")) for name in ("one", "two")]

    accepted = await asyncio.gather(*(cloud.control.apps.apply(caller, spec) for spec in specs))
    runs = [await cloud.finish(item) for item in accepted]

    assert [run.state for run in runs] == ["succeeded"] * 2
    assert [network.name for network in await cloud.control.networks.list(caller)] == ["default"]


async def test_one_published_port_goes_to_one_of_two_apps(cloud: Machine) -> None:
    port = PublishedPort(target=80, published=18_181)
    specs = [app(name, web=service(ports=(port,))) for name in ("one", "two", "three")]

    results = await attempts(cloud, specs)

    for accepted in results:
        assert accepted.run is not None
        async for _ in cloud.control.runs.follow(cloud.admin, accepted.run):
            pass
    states = [view.state for view in await cloud.control.apps.list(cloud.admin)]
    assert states == ["running"]
    assert await fetch(18_181) == "hello\n"


async def test_while_an_app_is_being_removed_all_else_is_refused(cloud: Machine) -> None:
    await cloud.apply(app(web=service(*STUBBORN, stop_grace_period=1)))
    removal = await cloud.control.apps.remove(cloud.admin, "shop")

    for change in (
        cloud.control.apps.apply(cloud.admin, app(web=service())),
        cloud.control.apps.stop(cloud.admin, "shop"),
        cloud.control.apps.restart(cloud.admin, "shop"),
        cloud.control.apps.remove(cloud.admin, "shop"),
    ):
        with pytest.raises(Conflict):
            await change

    await cloud.finish(removal)
    await cloud.apply(app(web=service()))


async def test_an_app_that_is_being_applied_cannot_be_removed_but_cancelled(cloud: Machine) -> None:
    check = HealthCheck(test=("CMD", "false"), interval=30)
    applying = await cloud.control.apps.apply(cloud.admin, app(web=service(healthcheck=check)))
    assert applying.run is not None

    with pytest.raises(Conflict, match=applying.run):
        await cloud.control.apps.remove(cloud.admin, "shop")
    await cloud.until("shop", "web-0", lambda view: view.state == "running")
    await cloud.control.runs.cancel(cloud.admin, applying.run)

    await cloud.finish(applying, expect="cancelled")
    assert await cloud.control.apps.list(cloud.admin) == []


async def test_a_tenant_is_removed_or_gets_its_app_but_not_both(cloud: Machine) -> None:
    ann = await member(cloud, "acme")

    applied, removed = await asyncio.gather(
        cloud.control.apps.apply(ann, app(web=service())),
        cloud.control.tenants.remove(cloud.admin, "acme"),
        return_exceptions=True,
    )

    if isinstance(applied, Accepted):
        assert isinstance(removed, Conflict)
        await cloud.finish(applied)
    else:
        assert isinstance(applied, Conflict)
        assert removed is None


async def attempts(cloud: Machine, specs: list[AppSpec]) -> list[Accepted]:
    """Apply all at once; those that were accepted.  The others are conflicts, never anything else."""
    results = await asyncio.gather(
        *(cloud.control.apps.apply(cloud.admin, spec) for spec in specs), return_exceptions=True
    )
    accepted = [result for result in results if isinstance(result, Accepted)]
    refused = [result for result in results if not isinstance(result, Accepted)]
    assert all(isinstance(error, Conflict) for error in refused), refused
    return accepted

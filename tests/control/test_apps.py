"""Apps on one real host: what apply, stop, start, restart and remove promise."""

import asyncio
from pathlib import Path

import pytest
from tests.machines import Machine, app, fetch, service

from skep.model.errors import Conflict, Exhausted, InvalidInput, NotFound
from skep.model.names import AppName, ServiceName
from skep.model.spec import (
    AppFile,
    AppSpec,
    Dependency,
    FileMount,
    HealthCheck,
    Mount,
    PublishedPort,
    ServiceSpec,
)

pytestmark = pytest.mark.root


async def test_an_applied_app_runs_and_answers_on_its_published_port(cloud: Machine) -> None:
    spec = app(web=service(ports=(PublishedPort(target=80),)))

    await cloud.apply(spec)

    view = (await cloud.control.apps.show(cloud.admin, "shop")).app
    assert (view.state, view.replicas, view.running) == ("running", 1, 1)
    assert await fetch(int(view.urls[0].rsplit(":", 1)[1])) == "hello\n"


async def test_applying_the_same_again_does_nothing(cloud: Machine) -> None:
    spec = app(web=service())
    await cloud.apply(spec)

    again = await cloud.control.apps.apply(cloud.admin, spec)

    assert again.run is None


async def test_replicas_reach_each_other_by_service_and_replica_name(cloud: Machine) -> None:
    await cloud.apply(app(web=service(replicas=2), client=service("sleep", "1000")))

    by_service = await cloud.output("shop", "client", "wget", "-qO-", "http://web/")
    by_replica = await cloud.output("shop", "client", "wget", "-qO-", "http://web-1/")

    assert (by_service, by_replica) == ("hello\n", "hello\n")


async def test_a_replica_keeps_address_mac_and_data_when_it_is_made_anew(cloud: Machine) -> None:
    data = Mount(type="volume", source="data", target="/data")
    await cloud.apply(app(db=service("sleep", "1000", mounts=(data,))))
    before = await cloud.replica("shop", "db-0")
    await cloud.output("shop", "db", "sh", "-c", "echo kept > /data/file; echo gone > /tmp/file; sync")

    await cloud.apply(app(db=service("sleep", "2000", mounts=(data,))))

    after = await cloud.replica("shop", "db-0")
    assert (after.addresses, after.mac, after.revision) == (before.addresses, before.mac, 2)
    assert await cloud.output("shop", "db", "cat", "/data/file") == "kept\n"
    assert await cloud.output("shop", "db", "ls", "/tmp") == ""


async def test_going_back_with_data_brings_back_what_the_disks_held(cloud: Machine) -> None:
    data = Mount(type="volume", source="data", target="/data")
    await cloud.apply(app(db=service("sleep", "1000", mounts=(data,))))
    await cloud.output("shop", "db", "sh", "-c", "echo one > /data/file; sync")
    await cloud.apply(app(db=service("sleep", "2000", mounts=(data,))))
    await cloud.output("shop", "db", "sh", "-c", "echo two > /data/file; sync")

    await cloud.finish(await cloud.control.releases.rollback(cloud.admin, "shop", with_data=True))

    assert await cloud.output("shop", "db", "cat", "/data/file") == "one\n"


async def test_what_a_new_release_no_longer_has_is_removed(cloud: Machine) -> None:
    await cloud.apply(app(web=service(replicas=3), old=service()))

    await cloud.apply(app(web=service()))

    views = await cloud.control.replicas.list(cloud.admin, "shop")
    assert [view.name for view in views] == ["web-0"]
    async with asyncio.timeout(10):
        while len(list((cloud.settings.data / "containers").iterdir())) > 1:
            await asyncio.sleep(0.1)


async def test_a_release_that_fails_leaves_everything_as_it_was(cloud: Machine) -> None:
    await cloud.apply(app(web=service()))
    before = await cloud.replica("shop", "web-0")
    broken = app(web=service("no-such-program"), extra=service())

    run = await cloud.apply(broken, expect="failed")

    assert "no-such-program" in run.error
    after = await cloud.until("shop", "web-0", lambda view: view.state == "running")
    assert (after.addresses, after.revision) == (before.addresses, 1)
    assert [view.name for view in await cloud.control.replicas.list(cloud.admin, "shop")] == ["web-0"]


async def test_a_first_release_that_fails_leaves_no_app(cloud: Machine) -> None:
    await cloud.apply(app(web=service("no-such-program")), expect="failed")

    with pytest.raises(NotFound):
        await cloud.control.apps.show(cloud.admin, "shop")


async def test_an_unhealthy_service_fails_the_release_and_says_why(cloud: Machine) -> None:
    check = HealthCheck(test=("CMD-SHELL", "echo broken pipe; exit 1"), interval=0.1, retries=2)

    run = await cloud.apply(app(web=service(healthcheck=check)), expect="failed")

    assert "broken pipe" in run.error or "unhealthy" in run.error


async def test_a_dependant_starts_only_when_what_it_needs_is_healthy(cloud: Machine) -> None:
    check = HealthCheck(test=("CMD", "test", "-e", "/tmp/ready"), interval=0.1, retries=50)
    db = service("sh", "-c", "sleep 1; touch /tmp/ready; sleep 1000", healthcheck=check)
    job = service("true", restart=service().restart.__class__(condition="no"))
    web = service(
        depends_on={
            ServiceName("db"): Dependency(condition="service_healthy"),
            ServiceName("job"): Dependency(condition="service_completed_successfully"),
        }
    )

    await cloud.apply(app(web=web, db=db, job=job))

    started = {view.name: view.started for view in await cloud.control.replicas.list(cloud.admin, "shop")}
    assert str(started["web-0"]) > str(started["db-0"])


async def test_stopping_and_starting_keeps_the_container(cloud: Machine) -> None:
    await cloud.apply(app(web=service()))
    await cloud.output("shop", "web", "touch", "/tmp/mark")

    await cloud.finish(await cloud.control.apps.stop(cloud.admin, "shop"))
    stopped = await cloud.until("shop", "web-0", lambda view: view.state == "stopped")
    await cloud.finish(await cloud.control.apps.start(cloud.admin, "shop"))

    assert stopped.desired == "stopped"
    assert await cloud.output("shop", "web", "ls", "/tmp") == "mark\n"


async def test_restarting_gives_a_new_process(cloud: Machine) -> None:
    await cloud.apply(app(web=service()))
    before = await cloud.replica("shop", "web-0")

    await cloud.finish(await cloud.control.apps.restart(cloud.admin, "shop", "web"))

    await cloud.until("shop", "web-0", lambda v: v.state == "running" and v.started != before.started)


async def test_removing_keeps_the_volumes_and_removing_with_volumes_does_not(cloud: Machine) -> None:
    data = Mount(type="volume", source="data", target="/data")
    spec = app(db=service("sleep", "1000", mounts=(data,)))
    await cloud.apply(spec)
    await cloud.output("shop", "db", "sh", "-c", "echo kept > /data/file; sync")

    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))
    await cloud.apply(spec)
    kept = await cloud.output("shop", "db", "cat", "/data/file")
    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop", volumes=True))

    assert kept == "kept\n"
    assert await cloud.control.disks.list(cloud.admin) == []
    assert await cloud.control.apps.list(cloud.admin) == []


async def test_secrets_and_configs_are_files_with_their_modes(cloud: Machine) -> None:
    spec = AppSpec(
        name=AppName("shop"),
        services={
            ServiceName("web"): service(
                "sleep",
                "1000",
                secrets=(FileMount(source="password", target="/run/secrets/password", mode=0o400),),
                configs=(FileMount(source="motd", target="/etc/motd"),),
            )
        },
        secrets={"password": AppFile(content=b"s3cret")},
        configs={"motd": AppFile(content=b"welcome")},
    )

    await cloud.apply(spec)

    assert await cloud.output("shop", "web", "cat", "/run/secrets/password", "/etc/motd") == "s3cretwelcome"
    assert "400" in await cloud.output("shop", "web", "stat", "-c", "%a", "/run/secrets/password")
    shown = (await cloud.control.apps.show(cloud.admin, "shop")).spec
    assert shown is not None
    assert shown.secrets["password"].content is None


async def test_a_taken_port_is_refused_before_anything_changes(cloud: Machine) -> None:
    await cloud.apply(app("one", web=service(ports=(PublishedPort(target=80, published=18_080),))))

    with pytest.raises(Conflict, match="18080"):
        await cloud.control.apps.apply(
            cloud.admin, app("two", web=service(ports=(PublishedPort(target=80, published=18_080),)))
        )


async def test_a_port_that_the_host_listens_on_fails_the_release_cleanly(cloud: Machine) -> None:
    server = await asyncio.start_server(lambda *_: None, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]

    run = await cloud.apply(
        app(web=service(ports=(PublishedPort(target=80, published=port),))), expect="failed"
    )

    server.close()
    assert str(port) in run.error
    assert await cloud.control.apps.list(cloud.admin) == []


async def test_nonsense_is_refused_with_every_problem_named(cloud: Machine) -> None:
    spec = app(
        web=service(
            depends_on={ServiceName("web"): Dependency(), ServiceName("nobody"): Dependency()},
            mounts=(Mount(type="volume", source="", target="../etc"),),
        )
    )

    with pytest.raises(InvalidInput) as caught:
        await cloud.control.apps.apply(cloud.admin, spec)

    assert all(word in caught.value.message for word in ("nobody", "circle", "../etc"))


async def test_a_tenant_cannot_exceed_its_quota_or_mount_the_host(cloud: Machine) -> None:
    from skep.control.callers import Role
    from skep.model.views.tenants import Quota

    await cloud.control.tenants.create(cloud.admin, "acme", Quota(replicas=2))
    await cloud.control.users.create(cloud.admin, "ann", "acme", Role.MEMBER)
    token = await cloud.control.tokens.create(cloud.admin, "laptop", user="ann")
    ann = await cloud.control.auth.authenticate(token.secret)

    with pytest.raises(Exhausted, match="quota of 2 replicas"):
        await cloud.control.apps.apply(ann, app(web=service(replicas=3)))
    with pytest.raises(InvalidInput, match="admins"):
        await cloud.control.apps.apply(
            ann, app(web=service(mounts=(Mount(type="bind", source="/etc", target="/host"),)))
        )


async def test_an_unknown_image_fails_the_release_in_plain_words(cloud: Machine) -> None:
    spec = app(web=ServiceSpec(image="127.0.0.1:9/nobody/nothing:1"))

    run = await cloud.apply(spec, expect="failed")

    assert "127.0.0.1:9/nobody/nothing:1" in run.error
    assert await cloud.control.apps.list(cloud.admin) == []


def test_the_archive_holds_busybox(archive: Path) -> None:
    assert archive.stat().st_size > 500_000

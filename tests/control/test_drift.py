"""What is not as the release says, from rows alone."""

import msgspec
import pytest
from tests.control.samples import BUSYBOX, TENANT
from tests.control.simulation import app, service
from tests.control.test_scaling import replica

from skep.control.apps.drift import Standing, drift
from skep.control.naming import fingerprint
from skep.model.host import ContainerState, Health
from skep.model.ids import AppId, DiskId, HostName, ReleaseId
from skep.model.names import ServiceName
from skep.model.spec import RestartPolicy
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow

SPEC = app(web=service(replicas=2))
RELEASE = ReleaseRow(
    id=ReleaseId("r1"),
    tenant_id=TENANT,
    app_id=AppId("app"),
    revision=1,
    state="current",
    spec=SPEC,
    plan="",
    images={"web": BUSYBOX},
    created_by="alice",
    created=0.0,
)


def found(
    rows: list[ReplicaRow], *, silent: dict[str, str] | None = None, runs: tuple[str, ...] = ()
) -> list[str]:
    containers = {
        row.container_id: ContainerRow(
            id=row.container_id,
            tenant_id=TENANT,
            replica_id=row.id,
            release_id=RELEASE.id,
            system_disk=DiskId("disk"),
            fingerprint=fingerprint(SPEC, ServiceName("web"), BUSYBOX.digest),
            created=0.0,
        )
        for row in rows
    }
    standing = Standing(
        release=RELEASE,
        replicas=rows,
        containers=containers,
        silent={HostName(name): why for name, why in (silent or {}).items()},
        runs=runs,
    )
    return [f"{one.what} is {one.is_}: {one.doing}" for one in drift(standing)]


def exited(row: ReplicaRow, code: int | None) -> ReplicaRow:
    assert row.status is not None
    status = msgspec.structs.replace(row.status, state=ContainerState.EXITED, exit_code=code)
    return msgspec.structs.replace(row, status=status)


def test_an_app_that_is_as_it_should_be_has_none() -> None:
    assert found([replica(0), replica(3)]) == []
    assert found([replica(0), exited(replica(1), 0)]) == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (exited(replica(1), 137), "web-1 is exited (137): it is started again"),
        (exited(replica(1), None), "web-1 is exited: it is made again"),
        (replica(1, health=Health.UNHEALTHY), "web-1 is unhealthy: connections go to others"),
        (msgspec.structs.replace(replica(1), status=None), "web-1 is not there: it is made again"),
        (msgspec.structs.replace(replica(1), desired="stopped"), "web-1 is stopped: asked for"),
        (msgspec.structs.replace(replica(1), weight=0), "web-1 is without connections: the next apply"),
    ],
)
def test_each_thing_that_is_wrong_says_what_becomes_of_it(row: ReplicaRow, told: str) -> None:
    [said] = found([replica(0), row])

    assert said.startswith(told)


def test_a_silent_host_leaves_its_replicas_unknown() -> None:
    [said] = found([replica(0), replica(1, 1)], silent={"host-1": "is silent for 40s"})

    assert said.startswith("web-1 is unknown: host host-1 is silent")


def test_numbers_and_stand_ins_are_counted_and_a_run_explains_them() -> None:
    beside = msgspec.structs.replace(replica(0), stand_in=True)

    assert found([replica(0)], runs=("run-1",)) == ["web is 1 replicas: run run-1 is changing the app"]
    assert found([replica(0), replica(1), beside])[0].startswith("web is 1 stand-ins")


def test_a_restart_policy_that_gives_up_is_said() -> None:
    never = service(replicas=1, restart=RestartPolicy(condition="no"))
    release = msgspec.structs.replace(RELEASE, spec=app(web=never))
    standing = Standing(release=release, replicas=[exited(replica(0), 1)], containers={}, silent={}, runs=())

    [said] = drift(standing)

    assert said.doing.startswith("nothing: its restart policy")

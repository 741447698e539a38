"""The releases of an app: what is kept of them, how they differ, and going back."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import HOST, Installation, installation
from tests.control.samples import TENANT, stand_on_cluster
from tests.control.simulation import DATA, app, service

from skep.control.apps.histories import before_by_hand
from skep.control.apps.release_diff import differences, in_a_line, shape
from skep.control.apps.retention import AUTOSCALER, obsolete
from skep.flow import RunId
from skep.model.errors import Conflict, InvalidInput, NotFound, Unsupported
from skep.model.ids import AppId, Digest, ImageId, ReleaseId, new_id
from skep.model.images import ImageInfo
from skep.model.names import ServiceName
from skep.model.needs import Need
from skep.model.spec import AppFile, AppSpec, FileMount, HealthCheck, ServiceSpec
from skep.model.views.releases import DifferenceView
from skep.providers.simulated.images import image
from skep.store import apps, images, snapshots
from skep.store.images import ImageRow
from skep.store.releases import ReleaseRow

OLD, NEW = image("a" * 64, 1024), image("c" * 64, 1024)
WEB = ServiceName("web")
SICK = HealthCheck(test=("CMD", "false"), interval=0.01, retries=1)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def applied(house: Installation, spec: AppSpec) -> None:
    await house.finish(await house.control.apps.apply(house.admin, spec))


async def back(house: Installation, revision: int | None = None) -> None:
    await house.finish(await house.control.releases.rollback(house.admin, "shop", revision))


async def points_at(house: Installation, reference: str, info: ImageInfo) -> None:
    """The reference means this image from now on, as after a pull or a build."""
    house.host.images.add(info)
    row = ImageRow(
        id=ImageId(new_id()),
        tenant_id=house.admin.tenant,
        reference=reference,
        digest=info.digest,
        info=info,
        created=0.0,
    )
    await house.database.write(lambda connection: images.save(connection, row))


async def in_force(house: Installation) -> ServiceSpec:
    detail = await house.control.apps.show(house.admin, "shop")
    assert detail.spec is not None
    return detail.spec.services[WEB]


async def running_image(house: Installation) -> str:
    [replica] = (await house.control.apps.show(house.admin, "shop")).replicas
    return replica.image_digest


def with_config(content: bytes) -> AppSpec:
    mounted = service(configs=(FileMount(source="site", target="/site"),))
    return msgspec.structs.replace(app(web=mounted), configs={"site": AppFile(content=content)})


def history(*states: str) -> list[ReleaseRow]:
    """Releases in these states, the newest first."""
    return [
        ReleaseRow(
            id=ReleaseId(f"r{len(states) - place}"),
            tenant_id=TENANT,
            app_id=AppId("app"),
            revision=len(states) - place,
            state=state,
            spec=app(),
            plan="",
            images={},
            created_by="alice",
            created=0.0,
        )
        for place, state in enumerate(states)
    ]


async def test_going_back_brings_back_environment_scale_files_and_images(house: Installation) -> None:
    await points_at(house, "busybox:1", OLD)
    first = with_config(b"one")
    await applied(house, first)
    await points_at(house, "busybox:1", NEW)
    second = with_config(b"two")
    web = msgspec.structs.replace(second.services[WEB], environment={"MODE": "fast"}, replicas=3)
    await applied(house, msgspec.structs.replace(second, services={WEB: web}))

    await back(house)

    releases = await house.control.releases.list(house.admin, "shop")
    made = await house.control.releases.diff(house.admin, "shop", 1)
    assert [(one.revision, one.state, one.note) for one in releases] == [
        (3, "current", "rollback to 1"),
        (2, "superseded", ""),
        (1, "superseded", ""),
    ]
    assert made.differences == ()
    assert await running_image(house) == OLD.digest


async def test_going_back_can_be_taken_back(house: Installation) -> None:
    await applied(house, app(web=service(environment={"MODE": "one"})))
    await applied(house, app(web=service(environment={"MODE": "two"})))
    await back(house)

    await back(house)

    assert (await in_force(house)).environment == {"MODE": "two"}
    assert [one.note for one in await house.control.releases.list(house.admin, "shop")][:2] == [
        "rollback to 2",
        "rollback to 1",
    ]


async def test_a_tag_that_moves_changes_nothing_until_something_is_applied(house: Installation) -> None:
    await points_at(house, "busybox:1", OLD)
    await applied(house, app(web=service()))

    await points_at(house, "busybox:1", NEW)

    [release] = await house.control.releases.list(house.admin, "shop")
    assert release.images == {"web": OLD.digest}
    assert await running_image(house) == OLD.digest
    await applied(house, app(web=service()))
    [release, _] = await house.control.releases.list(house.admin, "shop")
    assert release.changed == "web: image"


async def test_data_goes_back_to_what_a_release_left(house: Installation) -> None:
    def shop(mode: str) -> AppSpec:
        return app(db=service(mounts=(DATA,), environment={"MODE": mode}))

    await applied(house, shop("one"))
    await applied(house, shop("two"))
    async with house.database.read() as connection:
        [first] = await snapshots.every(connection)

    accepted = await house.control.releases.rollback(house.admin, "shop", with_data=True)
    await house.finish(accepted)

    assert accepted.run is not None
    done = [one.name for one in await house.flows.steps(RunId(accepted.run))]
    assert done.index("db-0-snapshot") < done.index("db-0-data") < done.index("db-0")
    async with house.database.read() as connection:
        assert [row.disk_id for row in await snapshots.every(connection)] == [first.disk_id] * 2


async def test_without_snapshots_data_cannot_go_back(house: Installation) -> None:
    await applied(house, app(web=service(environment={"MODE": "one"})))
    await applied(house, app(web=service(environment={"MODE": "two"})))

    with pytest.raises(Conflict, match="no snapshots"):
        await house.control.releases.rollback(house.admin, "shop", with_data=True)


async def test_where_disks_have_no_snapshots_data_does_not_go_back(house: Installation) -> None:
    await applied(house, app(db=service(mounts=(DATA,), environment={"MODE": "one"})))
    await applied(house, app(db=service(mounts=(DATA,), environment={"MODE": "two"})))
    await stand_on_cluster(house.database, "zone", HOST, lacks=(Need.SNAPSHOTS,))

    with pytest.raises(Unsupported, match=r"Zone 'zone' is a Kubernetes cluster without snapshots"):
        await house.control.releases.rollback(house.admin, "shop", with_data=True)


async def test_there_must_be_something_to_go_back_to(house: Installation) -> None:
    await applied(house, app(web=service()))

    with pytest.raises(Conflict, match="no release from before"):
        await back(house)
    with pytest.raises(Conflict, match="is in force"):
        await back(house, 1)
    with pytest.raises(NotFound, match="no revision 7"):
        await back(house, 7)


async def test_a_release_that_failed_cannot_be_gone_back_to(house: Installation) -> None:
    await applied(house, app(web=service()))
    failing = await house.control.apps.apply(house.admin, app(web=service(healthcheck=SICK)))
    assert failing.run is not None
    await house.flows.wait(failing.run, 30)  # type: ignore[arg-type]
    await applied(house, app(web=service("sleep", "1000")))

    with pytest.raises(Conflict, match="never was in force"):
        await back(house, 2)
    await back(house)

    assert (await in_force(house)).command == ("sleep", "infinity")


async def test_what_a_kept_release_is_made_of_survives_a_pruning(house: Installation) -> None:
    await points_at(house, "busybox:1", OLD)
    await applied(house, with_config(b"one"))
    await points_at(house, "busybox:1", NEW)
    await applied(house, with_config(b"two"))

    await house.control.images.prune(house.admin)
    await back(house)

    assert await running_image(house) == OLD.digest


async def test_contents_that_no_release_needs_go_with_a_pruning(house: Installation) -> None:
    await applied(house, with_config(b"one"))
    await house.finish(await house.control.apps.remove(house.admin, "shop"))

    await house.control.images.prune(house.admin)

    async with house.database.read() as connection:
        assert await apps.known_files(connection, house.admin.tenant) == set()


async def test_a_note_says_why_and_is_no_essay(house: Installation) -> None:
    control = house.control
    await house.finish(await control.apps.apply(house.admin, app(web=service()), note="the sale begins"))

    [release] = await control.releases.list(house.admin, "shop")
    assert release.note == "the sale begins"
    with pytest.raises(InvalidInput, match="201 characters"):
        await control.apps.apply(house.admin, app(web=service(replicas=2)), note="x" * 201)


def test_the_last_releases_that_were_in_force_are_kept() -> None:
    found = history("pending", "current", "failed", "superseded", "superseded", "superseded", "failed")

    assert obsolete(found, set(), 2) == ["r3", "r2"]
    assert obsolete(found, {ReleaseId("r3")}, 2) == ["r2"]
    assert obsolete(found, set(), 1) == ["r4", "r3", "r2", "r1"]


def test_releases_by_which_a_service_scaled_itself_push_none_out() -> None:
    found = [
        msgspec.structs.replace(row, created_by=AUTOSCALER if row.revision in (2, 3, 5) else "alice")
        for row in history("current", *["superseded"] * 5)
    ]

    assert obsolete(found, set(), 3) == ["r3", "r2"]
    assert [before_by_hand(found, row) for row in found[1:2]] == [found[5]]


def test_a_difference_is_a_value_with_its_place() -> None:
    images_then, images_now = {"web": OLD}, {"web": NEW, "cache": OLD}
    before = app(web=service(environment={"MODE": "a", "SAME": "1"}), db=service())
    after = app(web=service(environment={"MODE": "b", "SAME": "1"}, replicas=2), cache=service())

    found = differences(shape(before, images_then), shape(after, images_now))

    assert [(one.path, one.before, one.after) for one in found if one.path != "services.cache"] == [
        ("services.db", {"image": "busybox:1", "command": ("sleep", "infinity")}, None),
        ("services.web.environment.MODE", "a", "b"),
        ("services.web.image", f"busybox:1@{OLD.digest}", f"busybox:1@{NEW.digest}"),
        ("services.web.replicas", None, 2),
    ]
    assert in_a_line(found) == "web: environment, image, replicas 1 → 2; adds cache; removes db"


def test_a_file_is_known_by_its_hash_alone() -> None:
    digests = [AppFile(digest=Digest("sha256:" + letter * 64)) for letter in "ab"]
    before, after = (msgspec.structs.replace(app(web=service()), secrets={"key": one}) for one in digests)

    found = differences(shape(before, {}), shape(after, {}))

    assert found == (
        DifferenceView(path="secrets.key.digest", before=digests[0].digest, after=digests[1].digest),
    )
    assert in_a_line(found) == "secrets.key"


def test_what_is_long_is_cut() -> None:
    long = tuple(DifferenceView(path=f"services.{name}", after={}) for name in range(100))

    assert len(in_a_line(long)) == 120

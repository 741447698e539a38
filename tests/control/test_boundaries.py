"""What one tenant cannot get from, or do to, another; and what nobody can do by accident."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import DATA, app, service

from skep.control.callers import Role
from skep.control.setup import prepare_installation
from skep.model.errors import Conflict, Exhausted, Forbidden, InvalidInput, Unauthenticated
from skep.model.ids import Bytes, RegionName, ZoneName, new_id
from skep.model.images import BuildSpec
from skep.model.spec import (
    AppFile,
    AppNetwork,
    AppSpec,
    AppVolume,
    Extensions,
    FileMount,
    Mount,
    NetworkAttachment,
)
from skep.model.views.tenants import Quota

MiB = 1024**2


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


def with_secret(file: AppFile) -> AppSpec:
    spec = app(web=service(secrets=(FileMount(source="key", target="/run/secrets/key"),)))
    return msgspec.structs.replace(spec, secrets={"key": file})


async def test_a_digest_opens_no_other_tenants_secret(cloud: Installation) -> None:
    await cloud.control.tenants.create(cloud.admin, "thief")
    thief = await cloud.person("eve", Role.MEMBER, "thief")
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, with_secret(AppFile(content=b"1234"))))
    forged = with_secret(AppFile(digest=f"sha256:{hashlib.sha256(b'1234').hexdigest()}"))

    with pytest.raises(InvalidInput, match="secret key"):
        await cloud.control.apps.plan(thief, forged)
    with pytest.raises(InvalidInput, match="secret key"):
        await cloud.control.apps.apply(thief, forged)

    assert (await cloud.control.apps.apply(cloud.admin, forged)).run is None


async def test_a_viewer_is_refused_before_the_upload(cloud: Installation) -> None:
    viewer = await cloud.person("vera", Role.VIEWER)

    with pytest.raises(Forbidden):
        cloud.control.images.upload_path(viewer)


async def test_an_upload_that_is_refused_does_not_stay(cloud: Installation) -> None:
    archive = cloud.control.images.upload_path(cloud.admin)
    context = cloud.control.images.upload_path(cloud.admin)
    for path in (archive, context):
        path.write_bytes(b"much")

    with pytest.raises(InvalidInput):
        await cloud.control.images.load(cloud.admin, archive, "Not A Name")
    with pytest.raises(InvalidInput):
        await cloud.control.images.build(cloud.admin, context, BuildSpec(), "Not A Name")

    assert not archive.exists()
    assert not context.exists()


async def test_apps_applied_at_the_same_moment_share_one_quota(cloud: Installation) -> None:
    await cloud.control.tenants.create(cloud.admin, "small", Quota(replicas=3))
    owner = await cloud.person("sam", Role.MEMBER, "small")
    specs = [app(name, web=service(replicas=2)) for name in ("one", "two", "three")]

    results = await asyncio.gather(
        *(cloud.control.apps.apply(owner, spec) for spec in specs), return_exceptions=True
    )

    assert sum(isinstance(result, Exhausted) for result in results) == 2


async def test_every_disk_of_an_app_counts_and_none_grows_beyond_the_quota(cloud: Installation) -> None:
    await cloud.control.tenants.create(cloud.admin, "small", Quota(disk=Bytes(7 * MiB)))
    owner = await cloud.person("sam", Role.MEMBER, "small")
    own = Extensions(stateful=True, system_disk=MiB)
    web = service(mounts=(DATA,), x_skep=own)

    with pytest.raises(Exhausted):  # a system and a data disk of one MiB for each replica
        await cloud.control.apps.plan(owner, app(web=msgspec.structs.replace(web, replicas=4)))
    await cloud.finish(
        await cloud.control.apps.apply(owner, app(web=msgspec.structs.replace(web, replicas=3)))
    )
    with pytest.raises(Exhausted):
        await cloud.control.disks.resize(owner, "shop_data_web-0", 3 * MiB)
    other = Mount(type="volume", source="other", target="/data")
    with pytest.raises(Exhausted):  # the three stay, although nothing mounts them any more
        await cloud.control.apps.plan(
            owner, app(web=msgspec.structs.replace(web, replicas=3, mounts=(other,)))
        )
    await cloud.control.apps.plan(owner, app(web=msgspec.structs.replace(web, replicas=3)))


async def test_a_tenant_does_not_take_its_admins_along(cloud: Installation) -> None:
    with pytest.raises(Conflict, match="admin"):
        await cloud.control.tenants.remove(cloud.admin, "default")


async def test_a_revoked_token_of_the_installation_stays_revoked(cloud: Installation, tmp_path: Path) -> None:
    file = tmp_path / "admin.token"
    before = file.read_text().strip()
    (token,) = await cloud.control.tokens.list(cloud.admin)
    await cloud.control.tokens.revoke(cloud.admin, token.id)

    await prepare_installation(
        cloud.database,
        region=RegionName("region"),
        zone=ZoneName("zone"),
        token_file=file,
        now=cloud.clock,
        new_id=new_id,
    )

    with pytest.raises(Unauthenticated):
        await cloud.control.auth.authenticate(before)
    assert (await cloud.control.auth.authenticate(file.read_text().strip())).role is Role.ADMIN


def beside(spec: AppSpec, **changes: object) -> AppSpec:
    return msgspec.structs.replace(spec, **changes)


async def test_apps_whose_names_run_together_do_not_share_a_disk_or_network(cloud: Installation) -> None:
    web = service(mounts=(DATA,), networks={"net": NetworkAttachment()})
    mine = beside(app("a_b", web=web), networks={"net": AppNetwork()})
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, mine))
    disk = Mount(type="volume", source="b_data", target="/data")

    with pytest.raises(Conflict, match="another app"):
        await cloud.control.apps.plan(cloud.admin, app("a", web=service(mounts=(disk,))))
    with pytest.raises(Conflict, match="another app"):
        await cloud.control.apps.plan(
            cloud.admin,
            beside(
                app("a", web=service(networks={"b_net": NetworkAttachment()})),
                networks={"b_net": AppNetwork()},
            ),
        )


async def test_what_another_app_uses_is_not_removed_under_it(cloud: Installation) -> None:
    shop = beside(
        app(web=service(mounts=(DATA,), networks={"net": NetworkAttachment()})),
        networks={"net": AppNetwork()},
    )
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, shop))
    guest = beside(
        app("guest", web=service(mounts=(DATA,))), volumes={"data": AppVolume(external="shop_data")}
    )
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, guest))

    with pytest.raises(Conflict, match="shop_data"):
        await cloud.control.apps.remove(cloud.admin, "shop", volumes=True)
    with pytest.raises(Conflict, match="guest/web-0"):
        await cloud.control.disks.remove(cloud.admin, "shop_data")

    await cloud.finish(await cloud.control.apps.remove(cloud.admin, "shop"))


async def test_a_network_that_is_used_from_outside_its_app_keeps_the_app(cloud: Installation) -> None:
    shop = beside(app(web=service(networks={"net": NetworkAttachment()})), networks={"net": AppNetwork()})
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, shop))
    guest = beside(
        app("guest", web=service(networks={"net": NetworkAttachment()})),
        networks={"net": AppNetwork(external="shop_net")},
    )
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, guest))

    with pytest.raises(Conflict, match="shop_net"):
        await cloud.control.apps.remove(cloud.admin, "shop")


async def test_a_change_that_a_network_or_disk_cannot_follow_is_refused(cloud: Installation) -> None:
    def spec(network: AppNetwork, size: int | None) -> AppSpec:
        web = service(mounts=(DATA,), networks={"net": NetworkAttachment()}, labels={"size": str(size)})
        return beside(app(web=web), networks={"net": network}, volumes={"data": AppVolume(size=size)})

    await cloud.finish(await cloud.control.apps.apply(cloud.admin, spec(AppNetwork(), MiB)))

    for changed in (AppNetwork(internal=True), AppNetwork(subnet="10.9.0.0/24")):
        with pytest.raises(Conflict, match="shop_net"):
            await cloud.control.apps.plan(cloud.admin, spec(changed, MiB))
    with pytest.raises(Conflict, match="skep disk resize shop_data"):
        await cloud.control.apps.plan(cloud.admin, spec(AppNetwork(), 2 * MiB))

    await cloud.finish(await cloud.control.disks.resize(cloud.admin, "shop_data", 2 * MiB))
    await cloud.finish(await cloud.control.apps.apply(cloud.admin, spec(AppNetwork(), 2 * MiB)))

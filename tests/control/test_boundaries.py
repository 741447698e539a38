"""What one tenant cannot get from, or do to, another; and what nobody can do by accident."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service

from skep.control.callers import Role
from skep.model.errors import Forbidden, InvalidInput
from skep.model.images import BuildSpec
from skep.model.spec import AppFile, AppSpec, FileMount


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

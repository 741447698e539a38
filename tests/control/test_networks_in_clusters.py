"""Pods bear their networks from the start: what a container in a cluster says of them."""

from pathlib import Path

import msgspec
import pytest
from tests.control.installation import HOST, Installation, installation
from tests.control.samples import stand_on_cluster
from tests.control.simulation import app, service

from skep.control.callers import Role
from skep.control.desired import DesiredState
from skep.control.plans.specifications import Limits
from skep.model.host import ContainerSpec
from skep.model.spec import AppNetwork, NetworkAttachment
from skep.store import networks, replicas


async def running(house: Installation) -> ContainerSpec:
    """On two networks of its app, of which the second leads out."""
    made = await house.person("someone", Role.MEMBER, "acme")
    places = {"back": NetworkAttachment(), "front": NetworkAttachment(priority=7)}
    spec = app("shop", web=msgspec.structs.replace(service(), networks=places))
    spec = msgspec.structs.replace(spec, networks={name: AppNetwork() for name in places})
    await house.finish(await house.control.apps.apply(made, spec))
    async with house.database.read() as connection:
        (replica,) = await replicas.find(connection)
    return await DesiredState(house.database, Limits()).container(replica.container_id)


@pytest.mark.parametrize("clustered", [True, False])
async def test_a_pod_is_told_its_networks_and_which_leads_out_and_a_machine_is_not(
    tmp_path: Path, clustered: bool
) -> None:
    async with installation(tmp_path) as house:
        await house.control.tenants.create(house.admin, "acme")
        if clustered:
            await stand_on_cluster(house.database, "zone", HOST)
        found = await running(house)
        async with house.database.read() as connection:
            known = {row.id: row.name for row in await networks.every(connection)}

    assert len(found.ports) == 2
    told = {known[one]: leads_out for one, leads_out in found.networks.items()}
    assert told == ({"shop_front": True, "shop_back": False} if clustered else {})

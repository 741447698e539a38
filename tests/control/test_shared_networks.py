"""Two tenants on one network, and beside each other with the same addresses: real containers."""

import msgspec
import pytest
from tests.machines import Machine, app, service

from skep.control.callers import Caller
from skep.model.ids import TenantId
from skep.model.names import ServiceName, TenantName
from skep.model.spec import AppNetwork, AppSpec, NetworkAttachment

pytestmark = pytest.mark.root


async def acting_in(cloud: Machine, tenant: str) -> Machine:
    """The same installation, as an admin sees it who acts in a tenant made for it."""
    made = await cloud.control.tenants.create(cloud.admin, tenant)
    caller: Caller = msgspec.structs.replace(
        cloud.admin, tenant=TenantId(made.id), tenant_name=TenantName(tenant)
    )
    return Machine(cloud.control, cloud.settings, caller)


def on(network: str, **addresses: str) -> AppSpec:
    """The app shop with a web server for each name, at its address in the network."""
    places = {name: NetworkAttachment(ipv4_address=address) for name, address in addresses.items()}
    services = {
        ServiceName(name): msgspec.structs.replace(service(), networks={"n": place})
        for name, place in places.items()
    }
    return msgspec.structs.replace(app(), services=services, networks={"n": AppNetwork(external=network)})


async def reaches(cloud: Machine, replica: str, where: str) -> bool:
    asked = f"ping -c1 -W1 {where} >/dev/null 2>&1 && wget -qO- http://{where}/"
    return await cloud.output("shop", replica, "sh", "-c", asked) == "hello\n"


async def test_replicas_of_two_tenants_meet_where_both_agreed_and_nowhere_else(cloud: Machine) -> None:
    owner, guest, double = [await acting_in(cloud, name) for name in ("owner", "guest", "double")]
    networks, shares = cloud.control.networks, cloud.control.shares
    for one in (owner, double):
        await networks.create(one.admin, "back", subnet="10.1.0.0/24")
    await shares.offer(owner.admin, "back", "guest")
    await shares.accept(guest.admin, "owner", "back")

    await owner.apply(on("back", web="10.1.0.5", db="10.1.0.6"))
    await guest.apply(on("owner/back", web="10.1.0.7", cache="10.1.0.8"))
    await double.apply(on("back", web="10.1.0.5", bank="10.1.0.9"))

    assert await reaches(guest, "cache", "web.shop.guest")
    assert await reaches(guest, "cache", "db.shop")
    assert await reaches(owner, "db", "cache.shop.guest")
    assert not await reaches(owner, "db", "cache")
    assert await reaches(double, "bank", "10.1.0.5")
    assert not await reaches(double, "bank", "10.1.0.7")
    for one in (owner, guest):
        assert not await reaches(one, "web", "10.1.0.9")
    for one in (guest, owner, double):
        await one.finish(await cloud.control.apps.remove(one.admin, "shop"))
    await shares.leave(guest.admin, "owner/back")
    for one in (owner, double):
        await one.finish(await networks.remove(one.admin, "back"))

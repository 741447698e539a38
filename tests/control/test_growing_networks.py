"""A network that grows under what runs, with addresses of both families: real containers."""

import msgspec
import pytest
from tests.machines import Machine, app, service

from skep.model.names import ServiceName
from skep.model.spec import AppNetwork, AppSpec, AppSubnet, NetworkAttachment

pytestmark = pytest.mark.root


def shop(replicas: int, *subnets: AppSubnet) -> AppSpec:
    """Web servers on a network that has room for five, and no way out."""
    web = msgspec.structs.replace(service(replicas=replicas), networks={"n": NetworkAttachment()})
    back = AppNetwork(subnet="10.77.0.0/29", subnets=subnets, enable_ipv6=True, internal=True)
    return msgspec.structs.replace(app(), services={ServiceName("web"): web}, networks={"n": back})


async def page(cloud: Machine, replica: str, host: str) -> str:
    return await cloud.output("shop", replica, "sh", "-c", f"wget -qO- 'http://{host}/' 2>&1")


async def test_replicas_reach_each_other_by_both_families_and_across_subnets(cloud: Machine) -> None:
    await cloud.apply(shop(2))
    before = (await cloud.replica("shop", "web-0")).started
    more = AppSubnet(subnet="10.78.0.0/24")

    await cloud.finish(await cloud.control.networks.add_subnet(cloud.admin, "shop_n", more))
    await cloud.apply(shop(6, more))

    shown = await cloud.control.networks.show(cloud.admin, "shop_n")
    ports = [port for port in shown.ports if port.replica]  # the virtual IP of the service is another's
    first, *_, last = ports
    assert (first.address, last.address[:8], len(ports)) == ("10.77.0.2", "10.78.0.", 6)
    assert (await cloud.replica("shop", "web-0")).started == before
    assert first.address6 in (await cloud.replica("shop", first.replica.removeprefix("shop/"))).addresses
    old, new = first.replica.removeprefix("shop/"), last.replica.removeprefix("shop/")
    for replica, other in ((old, last), (new, first)):
        assert await page(cloud, replica, other.address) == "hello\n"
        assert await page(cloud, replica, f"[{other.address6}]") == "hello\n"
    said = await cloud.output("shop", old, "nslookup", "-type=aaaa", f"{new}.shop")
    assert last.address6 in said

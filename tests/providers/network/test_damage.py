"""What was broken by hand is noticed, and the same calls make it whole again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.providers.network.conftest import CLIENT, HOST, World, inside, network, port, publications, shell

from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.host import NetworkConfig, PortConfig, ServicePublications
from skep.providers.local.network import LocalFabric, teardown
from skep.providers.local.network.naming import Names, bridge_end

pytestmark = pytest.mark.root


class Site:
    """A network with a client and a published server, and how to make it whole."""

    def __init__(self, world: World, fabric: LocalFabric) -> None:
        self.world, self.fabric = world, fabric
        self.net: NetworkConfig = network()
        self.one: PortConfig = port(self.net, 5)
        self.two: PortConfig = port(self.net, 6)
        self.public: ServicePublications = publications(self.net, 80, 8080, (self.two.address,))

    async def make(self) -> None:
        await self.fabric.ensure_network(self.net)
        for made in (self.one, self.two):
            await self.fabric.plug(made)
        await self.fabric.publish(self.public)

    async def reports(self) -> tuple[bool, bool, bool]:
        """Whether network, ports and publication are said to be whole."""
        networks, ports, published = await asyncio.gather(
            self.fabric.networks(), self.fabric.ports(), self.fabric.published()
        )
        return networks == {self.net.id}, ports == {self.one.id, self.two.id}, bool(published)

    async def works(self) -> bool:
        await self.world.serve(self.fabric.sandbox(self.two.replica), 8080, "two")
        near = await self.world.ask(self.fabric.sandbox(self.one.replica), "10.1.0.6", 8080)
        far = await self.world.ask(self.world.client, HOST, 80)
        return (near, far) == ("two 10.1.0.5", f"two {CLIENT}")


@pytest.fixture
async def site(world: World, fabric: LocalFabric) -> Site:
    made = Site(world, fabric)
    await made.make()
    return made


Damage = Callable[[Site], object]


def _router(site: Site) -> str:
    return Names(site.world.instance).router(site.net.id).name


DAMAGES: dict[str, tuple[Damage, tuple[bool, bool, bool]]] = {
    "router namespace": (
        lambda s: shell("ip", "netns", "delete", _router(s)),
        (False, False, False),
    ),
    "sandbox": (
        lambda s: shell("ip", "netns", "delete", s.fabric.sandbox(s.one.replica).name),
        (True, False, True),
    ),
    "veth": (
        lambda s: shell("ip", "-n", _router(s), "link", "delete", bridge_end(s.one.id)),
        (True, False, True),
    ),
    "address": (
        lambda s: inside(s.fabric.sandbox(s.one.replica), "ip", "address", "flush", "dev", "eth0"),
        (True, False, True),
    ),
    "uplink": (
        lambda s: shell("ip", "-n", _router(s), "link", "delete", "up0"),
        (False, True, False),
    ),
    "host table": (
        lambda s: inside(s.world.host, "nft", "delete", "table", "inet", s.world.instance),
        (False, True, False),
    ),
    "host rule": (
        lambda s: inside(s.world.host, "nft", "flush", "chain", "inet", s.world.instance, "forward"),
        (False, True, False),
    ),
    "router's rules": (
        lambda s: shell("ip", "netns", "exec", _router(s), "nft", "flush", "ruleset"),
        (False, False, False),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_reported_and_healed(site: Site, name: str) -> None:
    damage, expected = DAMAGES[name]
    assert await site.reports() == (True, True, True)
    damage(site)

    assert await site.reports() == expected
    await site.make()

    assert await site.reports() == (True, True, True)
    assert await site.works()


async def test_what_the_release_before_made_is_taken_over(site: Site) -> None:
    """Its set of who is plugged in has another type, and so another name."""
    there = """
        delete table bridge skep
        table bridge skep {
            set members { type ifname . ether_addr . ipv4_addr; }
            chain from_ports {
                type filter hook prerouting priority -300; policy drop;
                ether type ip iifname . ether saddr . ip saddr @members accept comment "as-of-old"
            }
        }
    """
    shell("ip", "netns", "exec", _router(site), "nft", there)

    await site.make()

    assert await site.works()


async def test_after_a_reboot_the_same_calls_make_everything_again(world: World) -> None:
    async with world.open() as fabric:
        site = Site(world, fabric)
        await site.make()
    await teardown(world.instance, world.data, host=world.host)

    async with world.open() as fabric:
        site.fabric = fabric
        assert await site.reports() == (False, False, False)
        assert await fabric.sandboxes() == set()
        await site.make()
        assert await site.reports() == (True, True, True)
        assert await site.works()


async def test_leaving_keeps_the_networks_working(world: World) -> None:
    async with world.open() as fabric:
        site = Site(world, fabric)
        await site.make()

    assert await site.works()
    async with world.open() as again:
        site.fabric = again
        assert await site.reports() == (True, True, True)


async def test_everything_may_be_removed_twice(site: Site) -> None:
    removals: list[Callable[[], Awaitable[None]]] = [
        lambda: site.fabric.unpublish(site.public.service),
        lambda: site.fabric.unplug(site.one.id),
        lambda: site.fabric.remove_sandbox(site.one.replica),
        lambda: site.fabric.remove_sandbox(site.two.replica),
        lambda: site.fabric.delete_network(site.net.id),
    ]
    for removal in removals:
        await removal()
        await removal()

    assert await site.reports() == (False, False, False)
    assert await site.fabric.sandboxes() == set()
    assert sorted(path.name for path in (site.world.data / "network").iterdir()) == ["host-host.json"]


async def test_what_does_not_fit_is_refused(site: Site) -> None:
    stranger = network(7)
    with pytest.raises(NotFound):
        await site.fabric.plug(port(stranger, 5))
    with pytest.raises(InvalidInput, match="not free for a port"):
        await site.fabric.plug(port(site.net, 1))
    with pytest.raises(InvalidInput, match="name of a NIC"):
        await site.fabric.plug(port(site.net, 9, interface="eth0 up\nlink delete"))
    with pytest.raises(Conflict, match="is in use by port"):
        await site.fabric.plug(port(site.net, 5))
    with pytest.raises(Conflict, match="already has index 1"):
        await site.fabric.ensure_network(network(1, "10.9.0.0/24"))

"""One network on several hosts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.providers.network.conftest import network, port
from tests.providers.network.hosts import Hosts, hosts, ping

pytestmark = pytest.mark.root


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with hosts(tmp_path, 2) as made:
        yield made


async def test_replicas_on_two_hosts_reach_each_other(two: Hosts) -> None:
    net = network()
    a, b = two.sites
    await two.ensure(net)
    one, other = await a.plug(port(net, 5)), await b.plug(port(net, 6))
    await two.tell(net)
    await a.world.serve(b.sandbox(other), 80, "other")

    assert await ping(a, a.sandbox(one), other.address)
    assert await ping(b, b.sandbox(other), one.address)
    assert await a.world.ask(a.sandbox(one), "10.1.0.6", 80) == "other 10.1.0.5"
    for site in two.sites:
        assert await site.fabric.networks() == {net.id}

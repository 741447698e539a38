"""What changes while requests are answered."""

import asyncio
import os
import signal
import socket

import msgspec
import pytest
from tests.providers.edge.conftest import HTTP, Load, Site, certificate, endpoint
from tests.providers.network.conftest import HOST, HOST6, publications

from skep.model.errors import Conflict
from skep.model.ids import AppId, new_id
from skep.providers.local import edge as edges
from skep.providers.local.edge.place import Place
from skep.providers.local.edge.process import living

pytestmark = pytest.mark.root


async def test_a_whole_app_is_switched_under_load_and_nobody_fails(site: Site) -> None:
    old, new = await site.replica("old"), await site.replica("new")
    shop = endpoint("shop.localhost", old)
    await site.tell(shop, endpoint("api.localhost", old))

    async with Load(site.world, "shop.localhost") as load:
        switched = msgspec.structs.replace(shop, servers=endpoint("shop.localhost", new, revision=2).servers)
        await site.tell(switched, endpoint("api.localhost", new, revision=2))
        at = len(load.answers)
        await load.more(200)

    assert load.failures == []
    assert set(load.answers[at + 8 :]) == {"new"}
    assert await site.get("api.localhost") == "200 new"


async def test_a_name_is_the_apps_whose_rows_were_read_last(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    other = AppId(new_id())
    await site.tell(endpoint("api.localhost", one))

    await site.tell(endpoint("shop.localhost", two), app=other)
    await site.tell(endpoint("shop.localhost", one))

    assert await site.get("shop.localhost") == "200 one"
    await site.tell(endpoint("shop.localhost", two), app=other)
    assert await site.get("shop.localhost") == "200 two"


async def test_who_is_led_elsewhere_answers_until_the_switch_is_done(site: Site) -> None:
    old, new = await site.replica("old"), await site.replica("new")
    shop = endpoint("shop.localhost", old)
    await site.tell(shop)
    answers = []

    async def certify(digest: str) -> bytes:
        """Asked for just before requests are led elsewhere."""
        answers.append(await site.get("shop.localhost"))
        return certificate("shop.localhost")

    site.certify = certify  # type: ignore[method-assign]
    await site.restart()
    servers = endpoint("shop.localhost", new, revision=2).servers
    await site.tell(msgspec.structs.replace(shop, servers=servers, certificate="d1"))

    assert answers == ["200 old"]
    assert await site.get("shop.localhost") == "200 new"


async def test_a_way_is_there_until_nobody_takes_it_also_for_the_next_agent(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    first, second = (one.network, one.address, 8080), (two.network, two.address, 8080)

    before = await site.fabric.ways.lead([first])
    after = await site.fabric.ways.lead([second])
    await site.fabric.__aexit__(None, None, None)
    async with site.world.open() as next_agent:
        both = await site.reached(before[first]), await site.reached(after[second])
        again = await next_agent.ways.lead([first, second])
        await next_agent.ways.keep([after[second]])
        kept = await site.reached(before[first]), await site.reached(after[second])

    assert both == ("200 one", "200 two")
    assert again == before | after
    assert kept == ("000", "200 two")


async def test_weights_share_out_requests_and_a_replica_leaves_unnoticed(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    shop = endpoint("shop.localhost", one, two)
    few = msgspec.structs.replace(shop.servers[1], weight=25)
    await site.tell(msgspec.structs.replace(shop, servers=(shop.servers[0], few)))

    async with Load(site.world, "shop.localhost", clients=2) as load:
        await load.more(200)
        share = load.answers.count("two") / len(load.answers)
        await site.tell(msgspec.structs.replace(shop, servers=shop.servers[:1]))
        at = len(load.answers)
        await load.more(100)

    assert load.failures == []
    assert 0.15 < share < 0.25
    assert set(load.answers[at + 2 :]) == {"one"}


async def test_more_endpoints_than_slots_take_a_replacement_that_nobody_notices(site: Site) -> None:
    one = await site.replica("one")
    await site.tell(endpoint("shop.localhost", one))
    before = living(Place.of(site.world.instance))

    async with Load(site.world, "shop.localhost") as load:
        many = [endpoint(f"n{number}.localhost", one) for number in range(100)]
        await site.tell(*many, app=AppId(new_id()))
        await load.more(200)

    assert load.failures == []
    assert await site.get("n99.localhost") == "200 one"
    assert set(living(Place.of(site.world.instance))) != set(before)


async def test_an_open_connection_outlives_changes_and_replacements(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    shop = endpoint("shop.localhost", one)
    await site.tell(shop)
    loop = asyncio.get_running_loop()
    client = await site.world.socket(site.world.client, socket.SOCK_STREAM, None)
    with client:
        await loop.sock_connect(client, (HOST, HTTP))
        await loop.sock_sendall(
            client,
            b"GET /echo HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        assert b"101 Switching" in await loop.sock_recv(client, 1000)

        servers = endpoint("shop.localhost", two, revision=2).servers
        await site.tell(msgspec.structs.replace(shop, servers=servers))
        many = [endpoint(f"n{number}.localhost", one) for number in range(100)]
        await site.tell(*many, app=AppId(new_id()))
        await asyncio.sleep(3)
        await loop.sock_sendall(client, b"still there?")

        assert await loop.sock_recv(client, 1000) == b"still there?"
    assert await site.get("shop.localhost") == "200 two"


async def test_a_killed_haproxy_is_back_with_all_it_had(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    shop = endpoint("shop.localhost", one)
    await site.tell(shop)
    servers = endpoint("shop.localhost", two, revision=2).servers
    await site.tell(msgspec.structs.replace(shop, servers=servers))

    for pid in living(Place.of(site.world.instance)):
        os.kill(pid, signal.SIGKILL)

    async with asyncio.timeout(10):
        while await site.get("shop.localhost") != "200 two":
            await asyncio.sleep(0.05)


async def test_after_a_boot_nobody_is_let_in_before_replicas_are_reached(site: Site) -> None:
    one = await site.replica("one")
    await site.tell(endpoint("shop.localhost", one))
    await site.leave()
    await edges.teardown(site.world.instance, site.world.data)
    await site.fabric.delete_network(site.net.id)

    site.edge = site.make()
    await site.edge.__aenter__()
    early = await site.get("shop.localhost")
    await site.fabric.ensure_network(site.net)
    await site.fabric.plug(one)

    assert early == "000"
    async with asyncio.timeout(20):
        while (said := await site.get("shop.localhost")) == "000":
            await asyncio.sleep(0.05)
    assert said == "200 one"


async def test_the_next_agent_adopts_haproxy_and_goes_on(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    shop = endpoint("shop.localhost", one)
    told = await site.tell(shop)
    before = living(Place.of(site.world.instance))

    await site.restart()
    known = await site.edge.endpoints()
    servers = endpoint("shop.localhost", two, revision=2).servers
    await site.tell(msgspec.structs.replace(shop, servers=servers))

    assert known[told.app].digest == told.digest
    assert await site.get("shop.localhost") == "200 two"
    assert living(Place.of(site.world.instance)) == before


async def test_what_the_next_agent_would_start_otherwise_is_replaced_and_nobody_notices(site: Site) -> None:
    one = await site.replica("one")
    await site.tell(endpoint("shop.localhost", one))
    before = living(Place.of(site.world.instance))

    async with Load(site.world, "shop.localhost") as load:
        site.entrance = msgspec.structs.replace(site.entrance, six=True)
        await site.restart()
        async with asyncio.timeout(10):
            while (
                await site.client("curl", "-s", f"http://[{HOST6}]/", "-H", "Host: shop.localhost") != "one"
            ):
                await load.more(1)
        await load.more(20)

    assert load.failures == []
    assert set(living(Place.of(site.world.instance))) != set(before)


async def test_a_taken_port_is_said_and_the_edge_comes_up_when_it_is_free(site: Site) -> None:
    one = await site.replica("one")
    squatter = await site.world.socket(site.world.host, socket.SOCK_STREAM, ("0.0.0.0", HTTP))
    squatter.listen()

    with pytest.raises(Conflict, match="another process has its port"):
        await site.tell(endpoint("shop.localhost", one))
    squatter.close()

    async with asyncio.timeout(15):
        while await site.get("shop.localhost") != "200 one":
            await asyncio.sleep(0.1)


async def test_a_port_that_a_service_publishes_is_not_taken_from_it(site: Site) -> None:
    one = await site.replica("one")
    published = publications(site.net, HTTP, 8080, (one.address,))
    await site.fabric.publish(published)

    with pytest.raises(Conflict, match="a service publishes port 80"):
        await site.tell(endpoint("shop.localhost", one))

    assert await site.get("any.localhost") == "200 one"
    await site.fabric.unpublish(published.service)
    async with asyncio.timeout(15):
        while await site.get("shop.localhost") != "200 one" or not living(Place.of(site.world.instance)):
            await asyncio.sleep(0.1)

"""Ports of the host that lead to services."""

import asyncio
import socket
from collections import Counter

import pytest
from tests.providers.network.conftest import CLIENT, HOST, World, network, port, publications

from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.host import NetworkConfig, PortConfig, ServicePublications
from skep.providers.local.network import LocalFabric

pytestmark = pytest.mark.root


async def two_servers(world: World, fabric: LocalFabric) -> tuple[NetworkConfig, PortConfig, PortConfig]:
    net = network()
    one, two = port(net, 5), port(net, 6)
    await fabric.ensure_network(net)
    for made, name in ((one, "one"), (two, "two")):
        await fabric.plug(made)
        await world.serve(fabric.sandbox(made.replica), 8080, name)
    return net, one, two


async def test_an_outside_client_reaches_the_service_with_its_own_address(
    world: World, fabric: LocalFabric
) -> None:
    net, one, _ = await two_servers(world, fabric)
    wanted = publications(net, 80, 8080, (one.address,))

    await fabric.publish(wanted)
    await fabric.publish(wanted)

    assert await world.ask(world.client, HOST, 80) == f"one {CLIENT}"
    assert await fabric.published() == {wanted.service: wanted}


async def test_the_host_itself_reaches_the_service(world: World, fabric: LocalFabric) -> None:
    net, one, _ = await two_servers(world, fabric)
    await fabric.publish(publications(net, 80, 8080, (one.address,)))

    for address in ("127.0.0.1", HOST):
        assert (await world.ask(world.host, address, 80)).startswith("one ")


async def test_replicas_reach_their_own_service_through_the_host(world: World, fabric: LocalFabric) -> None:
    net, one, two = await two_servers(world, fabric)
    await fabric.publish(publications(net, 80, 8080, (one.address,)))

    for asker in (one, two):
        assert (await world.ask(fabric.sandbox(asker.replica), HOST, 80)).startswith("one ")


async def test_connections_are_spread_over_the_targets(world: World, fabric: LocalFabric) -> None:
    net, one, two = await two_servers(world, fabric)
    await fabric.publish(publications(net, 80, 8080, (one.address, two.address)))

    answers = [(await world.ask(world.client, HOST, 80)).split()[0] for _ in range(40)]

    assert Counter(answers).keys() == {"one", "two"}
    assert min(Counter(answers).values()) >= 5


async def test_publishing_again_replaces_and_no_target_refuses(world: World, fabric: LocalFabric) -> None:
    net, one, two = await two_servers(world, fabric)
    first = publications(net, 80, 8080, (one.address,))
    await fabric.publish(first)

    await fabric.publish(publications(net, 81, 8080, (two.address,), service=first.service))
    assert await world.ask(world.client, HOST, 80) == "refused"
    assert await world.ask(world.client, HOST, 81) == f"two {CLIENT}"

    await fabric.publish(publications(net, 81, 8080, (), service=first.service))
    assert await world.ask(world.client, HOST, 81) == "refused"
    assert await world.ask(world.host, "127.0.0.1", 81) == "refused"

    await fabric.unpublish(first.service)
    assert await fabric.published() == {}


async def test_one_number_on_two_host_addresses_leads_to_two_services(
    world: World, fabric: LocalFabric
) -> None:
    net, one, two = await two_servers(world, fabric)
    await fabric.publish(publications(net, 80, 8080, (one.address,), host_ip="127.0.0.1"))
    await fabric.publish(publications(net, 80, 8080, (two.address,), host_ip=HOST))

    assert (await world.ask(world.host, "127.0.0.1", 80)).startswith("one ")
    assert await world.ask(world.client, HOST, 80) == f"two {CLIENT}"


async def test_what_is_in_the_way_is_named(world: World, fabric: LocalFabric) -> None:
    net, one, _ = await two_servers(world, fabric)
    await world.serve(world.host, 8022, "host", "127.0.0.1")
    await fabric.publish(publications(net, 80, 8080, (one.address,)))

    with pytest.raises(Conflict, match=r"8022/tcp is in use: a process of the host listens on 127\.0\.0\.1"):
        await fabric.publish(publications(net, 8022, 8080, (one.address,)))
    with pytest.raises(Conflict, match="80/tcp is already published"):
        await fabric.publish(publications(net, 80, 8080, (one.address,)))
    with pytest.raises(InvalidInput, match="not an address of this host"):
        await fabric.publish(publications(net, 82, 8080, (one.address,), host_ip="198.51.100.9"))
    with pytest.raises(NotFound):
        await fabric.publish(publications(network(9), 83, 8080, ()))
    assert await world.ask(world.client, HOST, 80) == f"one {CLIENT}"


async def test_another_tenants_network_is_reached_only_where_it_is_published(
    world: World, fabric: LocalFabric
) -> None:
    net, one, _ = await two_servers(world, fabric)
    theirs = network(2)
    stranger = port(theirs, 5)
    await fabric.ensure_network(theirs)
    await fabric.plug(stranger)
    await fabric.publish(publications(net, 80, 8080, (one.address,)))

    assert (await world.ask(fabric.sandbox(stranger.replica), HOST, 80)).startswith("one ")
    for number in (80, 8080):
        assert await world.ask(fabric.sandbox(stranger.replica), "100.66.0.6", number) == "silence"


async def test_deleting_the_network_takes_its_publications_along(world: World, fabric: LocalFabric) -> None:
    net, one, _ = await two_servers(world, fabric)
    wanted: ServicePublications = publications(net, 80, 8080, (one.address,))
    await fabric.publish(wanted)

    await asyncio.gather(fabric.delete_network(net.id), fabric.delete_network(net.id))

    assert await fabric.networks() == set()
    assert await fabric.ports() == set()
    assert await world.ask(world.client, HOST, 80) == "refused"


async def test_a_client_by_udp_is_led_on_when_its_replica_is_gone(world: World, fabric: LocalFabric) -> None:
    net = network()
    one, two = port(net, 5), port(net, 6)
    await fabric.ensure_network(net)
    loop = asyncio.get_running_loop()
    listening = []
    for nic in (one, two):
        await fabric.plug(nic)
        where = fabric.sandbox(nic.replica)
        listening.append(await world.socket(where, socket.SOCK_DGRAM, (str(nic.address), 53)))
    items = publications(net, 5353, 53, (one.address,), protocol="udp")
    await fabric.publish(items)

    with await world.socket(world.client, socket.SOCK_DGRAM, None) as client, listening[0], listening[1]:
        await loop.sock_sendto(client, b"first", (HOST, 5353))
        async with asyncio.timeout(2):
            first = await loop.sock_recv(listening[0], 100)
        await fabric.publish(
            publications(net, 5353, 53, (two.address,), protocol="udp", service=items.service)
        )
        await loop.sock_sendto(client, b"second", (HOST, 5353))
        async with asyncio.timeout(2):
            second = await loop.sock_recv(listening[1], 100)

    assert (first, second) == (b"first", b"second")


async def test_udp_is_published_too(world: World, fabric: LocalFabric) -> None:
    net = network()
    one = port(net, 5)
    await fabric.ensure_network(net)
    await fabric.plug(one)
    await fabric.publish(publications(net, 5353, 53, (one.address,), protocol="udp"))
    loop = asyncio.get_running_loop()

    with (
        await world.socket(fabric.sandbox(one.replica), socket.SOCK_DGRAM, ("0.0.0.0", 53)) as server,
        await world.socket(world.client, socket.SOCK_DGRAM, None) as client,
    ):
        client.connect((HOST, 5353))
        client.send(b"ping")
        async with asyncio.timeout(2):
            data, peer = await loop.sock_recvfrom(server, 100)
            server.sendto(b"pong", peer)
            answer = await loop.sock_recv(client, 100)

    assert (data, peer[0], answer) == (b"ping", CLIENT, b"pong")

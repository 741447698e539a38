"""Security groups with real traffic: on one host, and over two."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from tests.providers.network.conftest import CLIENT, HOST, World, inside, network, port, publications
from tests.providers.network.hosts import Hosts, Site, hosts, ping

from skep.model.errors import InvalidInput, Stale
from skep.model.groups import GroupRule
from skep.model.host import GroupPolicy, GuardedPort, NetworkConfig, NetworkGuards, PortConfig
from skep.model.ids import GroupId
from skep.providers.local.network import LocalFabric
from skep.providers.local.network.guards import BRIDGED, TABLE
from skep.providers.local.network.naming import Names

pytestmark = pytest.mark.root
WEB, DB = GroupId("web"), GroupId("db")


def guards(
    net: NetworkConfig,
    generation: int,
    *guarded: PortConfig,
    rules: tuple[GroupRule, ...] = (),
    members: tuple[PortConfig, ...] = (),
) -> NetworkGuards:
    """The ports are in group db with these rules, which may name the group web with its members."""
    return NetworkGuards(
        network=net.id,
        generation=generation,
        ports=tuple(GuardedPort(address=one.address, groups=(DB,)) for one in guarded),
        groups=(
            GroupPolicy(id=DB, rules=rules),
            GroupPolicy(id=WEB, members=tuple(one.address for one in members)),
        ),
    )


def rule(ports: str = "", protocol: str = "tcp", **more: str) -> GroupRule:
    return msgspec.convert({"protocol": protocol, "ports": ports, **more}, GroupRule)


class Trio:
    """Three ports of one network on one host; `server` listens on 80 and 81."""

    def __init__(
        self, world: World, fabric: LocalFabric, net: NetworkConfig, ports: list[PortConfig]
    ) -> None:
        self.world, self.fabric, self.net = world, fabric, net
        self.server, self.friend, self.stranger = ports
        self.generation = 0

    async def guard(self, *rules: GroupRule) -> None:
        self.generation += 1
        told = guards(self.net, self.generation, self.server, rules=rules, members=(self.friend,))
        await self.fabric.set_guards(told)

    async def ask(self, who: PortConfig, number: int = 80) -> str:
        return await self.world.ask(self.fabric.sandbox(who.replica), str(self.server.address), number)

    @property
    def router(self) -> Path:
        return Names(self.world.instance).router(self.net.id)


@pytest.fixture
async def trio(world: World, fabric: LocalFabric) -> Trio:
    net = network()
    await fabric.ensure_network(net)
    ports = [port(net, 5, names=("db",)), port(net, 6), port(net, 7)]
    for one in ports:
        await fabric.plug(one)
        await fabric.set_resolvable(one.replica, True)
    for number in (80, 81):
        await world.serve(fabric.sandbox(ports[0].replica), number, f"db{number}")
    return Trio(world, fabric, net, ports)


async def test_a_guarded_port_admits_what_a_rule_admits_and_nothing_else(trio: Trio) -> None:
    assert await trio.ask(trio.stranger) == "db80 10.1.0.7"

    await trio.guard(rule("80", group=WEB))

    assert await trio.ask(trio.friend) == "db80 10.1.0.6"
    assert await trio.ask(trio.friend, 81) == "silence"
    assert await trio.ask(trio.stranger) == "silence"
    assert await trio.fabric.networks() == {trio.net.id}

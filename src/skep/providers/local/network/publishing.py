"""Ports of the host that lead to services."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from ipaddress import IPv4Address, ip_address
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket

from msgspec.structs import replace

from skep.model.errors import Conflict, InvalidInput, Unsupported
from skep.model.host import NetworkConfig, Publication, ServicePublications
from skep.model.ids import NetworkId, ServiceId
from skep.model.publishing import ANY_ADDRESS, give_way
from skep.providers.local.network import conntrack, netfilter
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.listeners import conflicting, host_listeners
from skep.providers.local.network.namespaces import exists
from skep.providers.local.network.routers import Routers
from skep.providers.local.network.rules.publications import link_ports
from skep.providers.local.network.state import ServiceRecord

_Targets = dict[NetworkId, set[IPv4Address]]


class Publishing:
    """All publications of the host."""

    def __init__(self, host: HostSide, routers: Routers) -> None:
        self._host = host
        self._state = host.state
        self._routers = routers
        self._lock = asyncio.Lock()

    async def publish(self, wanted: ServicePublications) -> None:
        async with self._lock:
            shrunk = give_way(wanted, [record.publications for record in self._state.services.values()])
            touched = set[NetworkId]().union(*(self._touched(one.service) for one in (*shrunk, wanted)))
            async with self._holding(touched | _networks(wanted.publications)) as networks:
                for item in wanted.publications:
                    self._check(item)
                await self._refuse_listeners(wanted)
                known = self._state.services
                before = {one.service: known.get(one.service) for one in (*shrunk, wanted)}
                for one in (*shrunk, wanted):
                    await self._state.save_service(self._record(one))
                await self._apply(networks)
                for one in (*shrunk, wanted):
                    record = before[one.service]
                    await self._end_flows(_targets(record.publications if record else None), _targets(one))

    async def unpublish(self, service: ServiceId) -> None:
        async with self._lock, self._holding(self._touched(service)) as networks:
            if service in self._state.services:
                await self._state.drop_service(service)
                await self._apply(networks)

    async def forget(self, network: NetworkId) -> None:
        """Drop every publication that leads to the network: its index may soon be another's."""
        async with self._lock:
            for record in tuple(self._state.services.values()):
                items = record.publications.publications
                left = tuple(item for item in items if item.network != network)
                if left != items:
                    await self._shrink(record.publications, left)

    async def published(self) -> dict[ServiceId, ServicePublications]:
        """The services whose publications are all in force."""
        async with self._lock, self._holding(set(self._state.networks)) as networks:
            if not await self._host.is_whole():
                return {}
            living = {network for network in networks if await self._is_whole(network)}
            return {
                service: record.publications
                for service, record in self._state.services.items()
                if _networks(record.publications.publications) <= living
            }

    async def _shrink(self, told: ServicePublications, left: tuple[Publication, ...]) -> None:
        async with self._holding(self._touched(told.service)) as networks:
            await self._state.save_service(self._record(replace(told, publications=left)))
            await self._apply(networks)

    @asynccontextmanager
    async def _holding(self, networks: set[NetworkId]) -> AsyncIterator[list[NetworkId]]:
        """Nothing about these networks' rules, nor the host's, changes meanwhile.

        The caller holds the lock: what services publish does not change either.
        """
        async with AsyncExitStack() as locks:
            for network in sorted(networks):
                await locks.enter_async_context(self._routers.lock[network])
            await locks.enter_async_context(self._host.lock)
            yield sorted(networks)

    async def _apply(self, networks: Iterable[NetworkId]) -> None:
        """The routers first: a connection that comes through must find its way on."""
        for network in networks:
            config = self._state.networks.get(network)
            if config is not None and exists(self._routers.path(network)):
                await self._routers.apply_rules(config)
        await self._host.apply()

    async def _end_flows(self, before: _Targets, after: _Targets) -> None:
        """What clients send by UDP to replicas that are gone begins anew: who keeps its port would stay."""
        for network, addresses in before.items():
            gone, router = addresses - after.get(network, set()), self._routers.path(network)
            if gone and exists(router):
                await self._host.namespaces.inside(router, partial(_forget_led_to, gone))

    async def _is_whole(self, network: NetworkId) -> bool:
        config = self._state.networks.get(network)
        return config is not None and await self._routers.is_whole(config)

    def _touched(self, service: ServiceId) -> set[NetworkId]:
        record = self._state.services.get(service)
        return _networks(record.publications.publications) if record else set()

    def _record(self, wanted: ServicePublications) -> ServiceRecord:
        """Old link ports stay, so that connections under way keep their path."""
        before = self._state.services.get(wanted.service)
        pairs = zip(before.publications.publications, before.link_ports, strict=True) if before else ()
        kept: dict[tuple[str, str, int], int] = {
            (item.protocol, item.host_ip, item.published): port for item, port in pairs
        }
        others: set[tuple[str, int]] = {
            (route.publication.protocol, route.link_port)
            for service, record in self._state.services.items()
            if service != wanted.service
            for route in record.routes()
        }
        others |= {("tcp", port) for ways in self._state.ways.values() for port in ways.values()}
        return ServiceRecord(publications=wanted, link_ports=link_ports(wanted.publications, kept, others))

    def _check(self, item: Publication) -> None:
        """Raises InvalidInput, Unsupported, or NotFound (the network is not on this host)."""
        network = self._routers.known(item.network)
        if network.internal:
            raise InvalidInput(f"Network {network.name!r} is internal: nothing on it can be published.")
        if not 0 < item.published < 65536 or not 0 < item.target < 65536:
            raise InvalidInput(f"Port {item.published}:{item.target} is not between 1 and 65535.")
        if item.host_ip in ANY_ADDRESS:
            return
        if why := _why_not(item.host_ip, network):
            raise Unsupported(f"Port {item.published} cannot be published on {item.host_ip!r}: {why}.")

    async def _refuse_listeners(self, wanted: ServicePublications) -> None:
        listeners = await self._host.namespaces.on_host(host_listeners)
        for item in wanted.publications:
            if found := conflicting(item, listeners):
                raise Conflict(
                    f"Port {item.published}/{item.protocol} is in use: a process of the host listens on "
                    f"{found[1]}:{found[2]}.",
                    port=item.published,
                )
        await self._host.namespaces.on_host(lambda: _refuse_foreign_addresses(wanted.publications))


def _targets(told: ServicePublications | None) -> _Targets:
    """Where datagrams are led."""
    found: _Targets = {}
    for item in told.publications if told else ():
        if item.protocol == "udp":
            found.setdefault(item.network, set()).update(item.addresses)
    return found


def _forget_led_to(gone: set[IPv4Address]) -> None:
    """In the router namespace."""
    with netfilter.opened() as channel:
        conntrack.forget_led_to(channel, gone)


def _networks(items: Iterable[Publication]) -> set[NetworkId]:
    return {item.network for item in items}


def _why_not(text: str, network: NetworkConfig) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return "that is no address"
    if address.version == 6 and not network.ipv6:
        return f"network {network.name!r} has no IPv6"
    return "say 127.0.0.1" if address.version == 6 and address.is_loopback else ""


def _refuse_foreign_addresses(items: Iterable[Publication]) -> None:
    """Raises InvalidInput: the host does not have one of the addresses."""
    for address in {item.host_ip for item in items} - ANY_ADDRESS:
        with socket(AF_INET6 if ":" in address else AF_INET, SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                raise InvalidInput(f"{address} is not an address of this host.") from error

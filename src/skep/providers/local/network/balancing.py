"""Leading connections for virtual IPs in every sandbox of the host: what was told, and who holds it."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address

from skep.model.host import NetworkVirtualIps, must_be_news
from skep.model.ids import NetworkId, ReplicaId
from skep.providers.local.network import (
    balancing_messages,
    conntrack,
    links,
    netfilter,
    nft,
    nft_elements,
    virtual_ips,
)
from skep.providers.local.network.host import HostSide
from skep.providers.local.network.namespaces import exists
from skep.providers.local.network.nft import Table
from skep.providers.local.network.routers import Routers


class Balancing:
    """All sandboxes of the host.  What each table holds is remembered, so that a change is a message each."""

    def __init__(self, host: HostSide, routers: Routers) -> None:
        self._names = host.names
        self._state = host.state
        self._namespaces = host.namespaces
        self._routers = routers
        self._lock = asyncio.Lock()
        self._held: dict[ReplicaId, Table] = {}
        self._closer = ThreadPoolExecutor(1, "skep-netfilter")

    def close(self) -> None:
        self._closer.shutdown()

    async def adopt(self) -> None:
        """Whoever was here before may have died between hearing of a change and making it."""
        for replica in tuple(self._state.sandboxes):
            await self.heal(replica)

    async def set_virtual_ips(self, told: NetworkVirtualIps) -> None:
        network = self._routers.known(told.network)
        virtual_ips.check(told, network)
        async with self._lock:
            before = self._state.virtual_ips.get(network.id)
            must_be_news(f"the virtual IPs of network {network.id}", told, before)
            await self._state.save_virtual_ips(told)
            self._routers.directory(network.id).lead(told.virtual_ips)
            if before == told:
                self._held.clear()  # look at every table, whatever it should hold
            await self._change(network.id)
            if gone := virtual_ips.gone(before, told):
                await self._end_flows(network.id, gone)

    async def follow(self, replica: ReplicaId) -> None:
        """It lost a port: what is of that network goes from its table."""
        async with self._lock:
            if replica in self._held:
                await self._make(replica, self._wanted(replica))

    async def heal(self, replica: ReplicaId) -> None:
        """Make the table what it should be, whatever it is."""
        async with self._lock:
            self._held.pop(replica, None)
            await self._make(replica, self._wanted(replica))

    def forget(self, replica: ReplicaId) -> None:
        """The sandbox is gone."""
        self._held.pop(replica, None)

    async def is_whole(self, replica: ReplicaId) -> bool:
        """Whether the sandbox has a table if it should; who has no privileges there cannot change it."""
        if replica not in self._held:
            return self._wanted(replica) is None
        return await self._namespaces.inside(self._names.sandbox(replica), _has_table)

    async def _change(self, network: NetworkId) -> None:
        """By messages, equal for all that hold the same; where the table is not known, by looking at it."""
        wanted = self._tables({port.replica for port in self._state.ports_on(network)})
        batches: dict[tuple[int, int], bytes] = {}
        quick: dict[ReplicaId, bytes] = {}
        for replica, table in wanted.items():
            have = self._held.get(replica)
            if have is None or table is None:
                await self._make(replica, table)
                continue
            pair = (id(have), id(table))
            if pair not in batches:
                batches[pair] = balancing_messages.changes(table, have)
            quick[replica] = batches[pair]
        for replica in await self._in_sandboxes(
            {one: partial(_send, batch) for one, batch in quick.items() if batch}
        ):
            await self._make(replica, wanted[replica])
        self._held |= {one: table for one in quick if (table := wanted[one]) is not None}

    async def _end_flows(self, network: NetworkId, gone: set[IPv4Address]) -> None:
        ports = {port.replica: port.address for port in self._state.ports_on(network)}
        await self._in_sandboxes(
            {one: partial(_end_flows, own, gone) for one, own in ports.items() if one in self._held}
        )

    async def _in_sandboxes(self, work: dict[ReplicaId, Callable[[socket.socket], None]]) -> list[ReplicaId]:
        """Send something in each of them; answers where it failed.  Sockets are closed later: that waits."""
        channels: list[socket.socket] = []

        def job(send: Callable[[socket.socket], None]) -> None:
            channels.append(channel := netfilter.opened())
            send(channel)

        try:
            done = await self._namespaces.in_each(
                [(self._names.sandbox(one), partial(job, send)) for one, send in work.items()]
            )
        except BaseException:  # who is cancelled leaves none open
            _close(channels)
            raise
        self._closer.submit(_close, channels)
        return [one for one, failure in zip(work, done, strict=True) if failure is not None]

    async def _make(self, replica: ReplicaId, wanted: Table | None) -> None:
        self._held.pop(replica, None)
        sandbox = self._names.sandbox(replica)
        if not exists(sandbox):
            return
        await self._namespaces.inside(sandbox, lambda: _make(wanted))
        if wanted is not None:
            self._held[replica] = wanted

    def _wanted(self, replica: ReplicaId) -> Table | None:
        return self._tables([replica])[replica]

    def _tables(self, replicas: Iterable[ReplicaId]) -> dict[ReplicaId, Table | None]:
        """Sandboxes on the same networks have the same table."""
        made: dict[tuple[NetworkId, ...], Table | None] = {}
        result = {}
        for replica in replicas:
            record = self._state.sandboxes.get(replica)
            networks = tuple(port.network for port in record.ports) if record else ()
            if networks not in made:
                made[networks] = self._table(networks)
            result[replica] = made[networks]
        return result

    def _table(self, networks: Iterable[NetworkId]) -> Table | None:
        told = [
            self._state.virtual_ips[network] for network in networks if network in self._state.virtual_ips
        ]
        found = [one for each in told for one in each.virtual_ips]
        return virtual_ips.table(found) if found else None


def _close(channels: list[socket.socket]) -> None:
    for channel in channels:
        channel.close()


# Inside a sandbox.


def _make(wanted: Table | None) -> None:
    if wanted is not None:
        nft.reconcile((wanted,))
        links.sysctl(virtual_ips.SETTINGS)
    elif ("inet", virtual_ips.TABLE) in nft.tables():
        nft.commit(f"delete table inet {virtual_ips.TABLE}")


def _has_table() -> bool:
    with netfilter.opened() as channel:
        return nft_elements.is_there(channel, virtual_ips.TABLE)


def _send(batch: bytes, channel: socket.socket) -> None:
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(batch))
    nft_elements.send(channel, batch)


def _end_flows(own: IPv4Address, gone: set[IPv4Address], channel: socket.socket) -> None:
    """What is sent by UDP to replicas that are gone begins anew: clients that keep their port would stay."""
    for key in nft_elements.keys(channel, virtual_ips.TABLE, virtual_ips.TALKS):
        talk = virtual_ips.talk(key, own)
        if talk.source in gone:
            nft_elements.forget(channel, virtual_ips.TABLE, virtual_ips.TALKS, key)
            conntrack.forget(channel, talk)

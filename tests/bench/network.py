"""`make bench-network`: what networks over several hosts cost, beside plain ones made in the same run.

Hosts are sets of network namespaces on this machine, joined by a bridge; MTU 1500 between them.  Ours and the
plain one are measured in turn, so that what else goes on concerns both alike.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.bench import traffic
from tests.bench.plain_network import SECOND, plain_bridge, plain_vxlan
from tests.bench.report import Report, Target
from tests.control.test_peers import NET, add_replica, fill, host
from tests.providers.network.conftest import network, port
from tests.providers.network.hosts import Hosts, hosts, ping

from skep.control.host_directory import HostDirectory
from skep.control.ports import DiskPool, Edge, Engine, Fabric, ImageStore, Spool
from skep.control.telling.peering import Peering
from skep.flow import Database
from skep.model.groups import GroupRule
from skep.model.host import (
    Backend,
    GroupPolicy,
    GuardedPort,
    HostFacts,
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PortConfig,
    RemotePort,
    VirtualIp,
)
from skep.model.ids import GroupId, HostName, PortId, ReplicaId, ServiceId, new_id
from skep.providers.simulated import SimulatedHost
from skep.store import hosts as host_rows
from skep.store.schema import migrate

PORT = 5201
Place = tuple[Path, Path, str]
"""Where to send from, where to, and the address there."""


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("error: network namespaces need root: run it with sudo.")
    report = Report()
    try:
        asyncio.run(measure(report, arguments))
    finally:
        report.print_table()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of ours and the plain one")
    parser.add_argument("--seconds", type=float, default=1.5, help="of traffic in each turn")
    parser.add_argument("--ports", type=int, default=10_000, help="ports on another host to program")
    parser.add_argument("--plugs", type=int, default=100, help="plugs until reachable")
    parser.add_argument("--sandboxes", type=int, default=100, help="sandboxes that hear of each new weight")
    parser.add_argument("--hosts", type=int, default=50, help="hosts that are told of each plug")
    return parser.parse_args()


async def measure(report: Report, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with hosts(Path(folder), 2) as two:
            net = network(1, "10.1.0.0/16")
            await two.ensure(net)
            a, b = two.sites
            ports = [await a.plug(port(net, 5)), await a.plug(port(net, 6)), await b.plug(port(net, 7))]
            await two.tell(net)
            near = (a.sandbox(ports[0]), a.sandbox(ports[1]), str(ports[1].address))
            far = (a.sandbox(ports[0]), b.sandbox(ports[2]), str(ports[2].address))
            with plain_bridge(1450) as (first, second):
                compare(report, "same host", near, (first, second, SECOND), "plain bridge", arguments)
            with plain_vxlan(1500) as (first, second):
                compare(report, "across hosts", far, (first, second, SECOND), "plain VXLAN", arguments)
            with plain_vxlan(1500, nat=True) as (first, second):
                peer = "plain VXLAN, hosts with NAT"
                compare(report, "across hosts with NAT", far, (first, second, SECOND), peer, arguments)
            await measure_guards(report, two, near, far, arguments)
            await measure_virtual_ips(report, two, near, far, arguments)
            await measure_balancing(report, two, arguments.sandboxes)
            await measure_programming(report, two, arguments.ports)
        with tempfile.TemporaryDirectory() as other:
            async with hosts(Path(other), 2) as fresh:
                await measure_plugs(report, fresh, Path(other), arguments)
        with tempfile.TemporaryDirectory() as third:
            async with hosts(Path(third), 3) as three:
                await measure_moves(report, three, arguments.plugs // 4)


def compare(
    report: Report,
    where: str,
    ours: Place,
    plain: Place,
    peer: str,
    arguments: argparse.Namespace,
    ratio: float = 0.95,
) -> None:
    """Throughput, and what a question costs, ours and the plain one in turn.

    Of the turns of each the best quarter's worst counts: what else runs on the machine only takes away.
    """
    seconds = arguments.seconds
    rates: tuple[list[float], list[float]] = ([], [])
    times: tuple[list[float], list[float]] = ([], [])
    with serving(ours[1]) as one, serving(plain[1]) as other:
        for turn in range(arguments.rounds * 4):
            for number, place, server in ((0, ours, one), (1, plain, other)):
                if turn % 4 == 0:
                    rates[number].append(run(place[0], "stream", place[2], str(PORT), str(seconds)))
                times[number].append(run(place[0], "ask", place[2], str(PORT), "4000", str(server)))
    best = [sorted(found, reverse=True)[len(found) // 4] for found in rates]
    least = [sorted(found)[len(found) // 4] for found in times]
    report.add(
        f"TCP stream, {where}",
        best[0] * 8 / 1e9,
        "Gbit/s",
        target=Target("at least", 0, ratio=ratio),
        peer=peer,
        peer_value=best[1] * 8 / 1e9,
        note=f"{arguments.rounds} turns of {seconds:g} s; MTU 1450 in both",
    )
    report.add(
        f"question of 64 bytes, {where}",
        least[0] * 1e6,
        "us",
        target=Target("at most", 1e6, ratio=ratio),
        peer=peer,
        peer_value=least[1] * 1e6,
        note=f"processor time of both ends and the way; {4 * arguments.rounds} turns of 4000",
    )


async def measure_guards(
    report: Report, two: Hosts, near: Place, far: Place, arguments: argparse.Namespace
) -> None:
    """A network where the target is in a group of ten rules, beside one without groups."""
    net = network(9, "10.9.0.0/16")
    await two.ensure(net)
    a, b = two.sites
    ports = [await a.plug(port(net, 5)), await a.plug(port(net, 6)), await b.plug(port(net, 7))]
    await two.tell(net)
    rules = tuple(
        GroupRule(protocol="tcp", ports=str(PORT + number), cidr="10.9.0.0/16") for number in range(10)
    )
    group = GroupPolicy(id=GroupId("bench"), rules=rules)
    for site, target in ((a, ports[1]), (b, ports[2])):
        guarded = GuardedPort(address=target.address, groups=(group.id,))
        await site.fabric.set_guards(
            NetworkGuards(network=net.id, generation=1, ports=(guarded,), groups=(group,))
        )
    for where, target, free in (("same host", ports[1], near), ("across hosts", ports[2], far)):
        site = a if where == "same host" else b
        place = (a.sandbox(ports[0]), site.sandbox(target), str(target.address))
        compare(report, f"{where}, group of 10 rules", place, free, "without groups", arguments, 0.6)


async def measure_virtual_ips(
    report: Report, two: Hosts, near: Place, far: Place, arguments: argparse.Namespace
) -> None:
    """By virtual IP, and directly where there are virtual IPs, beside a network without."""
    net = network(10, "10.10.0.0/16")
    await two.ensure(net)
    a, b = two.sites
    ports = [await a.plug(port(net, 5)), await a.plug(port(net, 6)), await b.plug(port(net, 7))]
    await two.tell(net)
    addresses = {"same host": net.subnet[100], "across hosts": net.subnet[101]}
    for site in two.sites:
        await site.fabric.set_virtual_ips(
            NetworkVirtualIps(
                network=net.id,
                generation=1,
                virtual_ips=tuple(
                    _led(str(n), address, (target.address,))
                    for n, (address, target) in enumerate(zip(addresses.values(), ports[1:], strict=True))
                ),
            )
        )
    for where, target, free in (("same host", ports[1], near), ("across hosts", ports[2], far)):
        source, sandbox = a.sandbox(ports[0]), (a if where == "same host" else b).sandbox(target)
        led, direct = (source, sandbox, str(addresses[where])), (source, sandbox, str(target.address))
        compare(report, f"{where}, by virtual IP", led, free, "direct, none there", arguments, 0.6)
        compare(report, f"{where}, direct beside virtual IPs", direct, free, "none there", arguments, 0.8)


async def measure_balancing(report: Report, two: Hosts, count: int) -> None:
    """New weights of one service of ten, in every sandbox of a host."""
    net, site = network(11, "10.0.0.0/16"), two.sites[0]
    await site.fabric.ensure_network(net)
    plugged = [_plugged(net, 100 + number) for number in range(count)]
    ports = [
        await site.plug(msgspec.structs.replace(one, replica=ReplicaId(new_id()), id=PortId(new_id())))
        for one in plugged
    ]
    took, used = [], []
    for generation in range(1, 21):
        weights = [50 + generation, *([100] * 9)]
        told = NetworkVirtualIps(
            network=net.id,
            generation=generation,
            virtual_ips=tuple(
                _led(str(n), net.subnet[30_000 + n], tuple(one.address for one in ports[:3]), weight)
                for n, weight in enumerate(weights)
            ),
        )
        time_, processor = await _timed(partial(site.fabric.set_virtual_ips, told))
        if generation > 1:  # the first one makes the tables
            took.append(time_)
            used.append(processor)
    note = f"{count} sandboxes on one host, 10 services of 3; processor {statistics.median(used):.0f} ms"
    report.add(
        "new weights of a virtual IP",
        statistics.median(took),
        "ms",
        target=Target("at most", 50),
        note=note,
    )
    for one in ports:
        await site.unplug(one)


def _led(
    service: str, address: IPv4Address, replicas: tuple[IPv4Address, ...], weight: int = 100
) -> VirtualIp:
    first, *others = replicas
    return VirtualIp(
        service=ServiceId(service),
        address=address,
        app="shop",
        names=(service,),
        backends=(Backend(address=first, weight=weight), *(Backend(address=one) for one in others)),
    )


@contextmanager
def serving(where: Path) -> Iterator[int]:
    """A process in the namespace that answers; its id."""
    command = ["ip", "netns", "exec", where.name, sys.executable, traffic.__file__, "serve", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield server.pid
        finally:
            server.kill()


def run(where: Path, *arguments: str) -> Any:
    command = ["ip", "netns", "exec", where.name, sys.executable, traffic.__file__, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


async def measure_programming(report: Report, two: Hosts, count: int) -> None:
    """All ports of a network at once, and one more."""
    a, b = two.sites
    net = network(2, "10.2.0.0/16")
    await a.fabric.ensure_network(net)
    ports = tuple(_remote(net, number, b.address) for number in range(count + 1))
    known = NetworkPeers(network=net.id, generation=1, hosts=(b.address,), ports=ports[:count])
    first = await _timed(lambda: a.fabric.set_peers(known))
    by_batch = _batched(a.router(net), known)
    report.add(
        f"{count} ports elsewhere, programmed",
        first[0],
        "ms",
        target=Target("at most", 5000),
        peer="bridge -batch and ip -batch",
        peer_value=by_batch,
        note=f"with rules, names and record; {first[1]:.0f} ms of processor time of the agent",
    )
    more, less = ports, ports[:count]
    steps = [
        await _timed(partial(a.fabric.set_peers, msgspec.structs.replace(known, generation=2 + n, ports=now)))
        for n, now in enumerate((more, less) * 5)
    ]
    report.add(
        f"one port more or less among {count}",
        statistics.median(step[0] for step in steps),
        "ms",
        note=f"{statistics.median(step[1] for step in steps):.0f} ms of processor time",
    )
    checked = await _timed(a.fabric.networks)
    report.add(f"checking {count} ports", checked[0], "ms", note=f"{checked[1]:.0f} ms of processor time")


def _remote(net: NetworkConfig, number: int, underlay: IPv4Address) -> RemotePort:
    return RemotePort(
        id=PortId(new_id()),
        replica=ReplicaId(new_id()),
        address=net.subnet[10 + number],
        mac=f"02:bb:00:00:{number >> 8:02x}:{number & 255:02x}",
        underlay=underlay,
        app="shop",
        names=("web", f"web-{number}"),
        up=True,
    )


def _batched(router: Path, peers: NetworkPeers) -> float:
    """The same entries once more, by the usual tools."""
    frames = "".join(
        f"fdb replace {port.mac} dev vx0 self dst {port.underlay} static\n"
        f"fdb replace {port.mac} dev vx0 master static\n"
        for port in peers.ports
    )
    neighbours = "".join(
        f"neigh replace {port.address} lladdr {port.mac} dev br0 nud permanent\n" for port in peers.ports
    )
    began = time.perf_counter()
    for tool, lines in (("bridge", frames), ("ip", neighbours)):
        command = ["ip", "netns", "exec", router.name, tool, "-batch", "-"]
        subprocess.run(command, input=lines.encode(), check=True, capture_output=True, timeout=60)
    return (time.perf_counter() - began) * 1000


async def _timed(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Milliseconds, and milliseconds of this process's processor time."""
    began, busy = time.perf_counter(), time.process_time()
    await work()
    return (time.perf_counter() - began) * 1000, (time.process_time() - busy) * 1000


@dataclass(frozen=True)
class RealFabric:
    """A simulated host with real networks."""

    facts: HostFacts
    engine: Engine
    disks: DiskPool
    fabric: Fabric
    edge: Edge
    images: ImageStore
    spool: Spool


async def measure_plugs(report: Report, two: Hosts, folder: Path, arguments: argparse.Namespace) -> None:
    """From plugging on one host to an echo from another; the rest of the hosts are simulated."""
    database = await Database.open(f"sqlite+aiosqlite:///{folder / 'skep.db'}")
    try:
        await migrate(database.engine)
        directory, peering = await _installation(database, two, arguments.hosts)
        net = msgspec.structs.replace(network(1, "10.0.0.0/22"), id=NET)
        for name in directory.names():
            await directory.on(name).fabric.ensure_network(net)
        a, b = two.sites
        watcher = await a.plug(_plugged(net, 5))
        await peering.announce([NET])
        took = []
        for number in range(arguments.plugs):
            nic = _plugged(net, 20 + number)
            await database.write(partial(add_replica, number=20 + number, where=HostName("b")))
            began = time.perf_counter()
            await b.fabric.plug(nic)
            await peering.announce([NET])
            while not await ping(a, a.sandbox(watcher), nic.address):
                pass
            took.append((time.perf_counter() - began) * 1000)
    finally:
        await database.close()
    took.sort()
    middle = statistics.median(took)
    report.add(
        "plug to reachable from every host, p99",
        took[int(len(took) * 0.99) - 1],
        "ms",
        target=Target("at most", 100),
        note=f"{len(took)} plugs, {arguments.hosts} hosts of which 2 are real; p50 {middle:.1f} ms",
    )


async def measure_moves(report: Report, three: Hosts, count: int) -> None:
    """A port goes to and fro between two hosts, and a third asks for it."""
    net = network()
    await three.ensure(net)
    asking, one, other = three.sites
    watcher, moving = await asking.plug(port(net, 5)), await one.plug(port(net, 6))
    await three.tell(net)
    gaps = []
    for _ in range(count):
        began = time.perf_counter()
        await one.unplug(moving)
        await other.plug(moving)
        await three.tell(net)
        while not await ping(asking, asking.sandbox(watcher), moving.address):
            pass
        gaps.append((time.perf_counter() - began) * 1000)
        one, other = other, one
    report.add(
        "a port moves to another host: unreachable for",
        statistics.median(gaps),
        "ms",
        note=f"median of {count} moves, slowest {max(gaps):.0f} ms: unplugged there, plugged here, all told",
    )


def _plugged(net: NetworkConfig, number: int) -> PortConfig:
    address = IPv4Address("10.0.0.0") + number
    return msgspec.structs.replace(
        port(net, 5),
        id=PortId(f"port{number}"),
        replica=ReplicaId(f"replica{number}"),
        address=address,
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
    )


async def _installation(database: Database, two: Hosts, count: int) -> tuple[HostDirectory, Peering]:
    await database.write(fill)
    directory = HostDirectory()
    for name, site in zip(("a", "b"), two.sites, strict=True):
        simulated = SimulatedHost.make()
        directory.add(
            HostName(name),
            RealFabric(**(vars(simulated) | {"fabric": site.fabric})),
        )
    directory.add(HostName("c"), SimulatedHost.make())

    async def join(tx: AsyncConnection) -> None:
        for name, site in zip(("a", "b"), two.sites, strict=True):
            row = host(HostName(name), underlay=str(site.address))
            await host_rows.save(tx, row)
        for number in range(3, count):
            name = HostName(f"simulated-{number}")
            directory.add(name, SimulatedHost.make())
            await host_rows.save(tx, host(name, underlay=f"192.0.2.{10 + number}"))
            await add_replica(tx, 500 + number, name)

    await database.write(join)
    return directory, Peering(database, directory)


if __name__ == "__main__":
    main()

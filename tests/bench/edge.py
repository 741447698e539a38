"""`make bench-edge`: what endpoints cost beside a bare HAProxy that leads to the same replica.

Both run in one namespace of this machine, reach the replica by the same way, and are measured in turn with
wrk, so that what else goes on concerns both alike.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.report import Report, Target
from tests.providers.edge.conftest import HTTP, Site, endpoint
from tests.providers.network.conftest import HOST, new_world

from skep.model.edge import EdgeEndpoint, EdgeServer
from skep.model.host import PortConfig
from skep.model.ids import AppId, new_id

BARE, BY_HAND = 8080, 8082
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_DEFAULTS = """\
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
"""
_REPLICA = f"""\
{_DEFAULTS}
frontend web
    bind :8080
    http-request return status 200 content-type text/plain string hello
"""


_FORWARDING = """\
    http-request del-header forwarded -m sub
    option forwardfor
    http-request add-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
"""


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("this needs root: it makes network namespaces")
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(report, Path(folder), arguments))
    report.print_table()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=50)
    return parser.parse_args()


async def measure(report: Report, folder: Path, arguments: argparse.Namespace) -> None:
    async with new_world(folder) as world, world.open() as fabric:
        site = Site(world, fabric)
        try:
            async with site.edge:
                await _measure(report, site, arguments)
        finally:
            await site.close()


async def _measure(report: Report, site: Site, arguments: argparse.Namespace) -> None:
    one = await site.plugged()
    shop = endpoint("shop.localhost", one)
    way = await _way(site, one)
    bare = f"{_DEFAULTS}frontend bare\n    bind :{BARE}\n    default_backend one\n"
    bare += f"backend one\n    server one {way}\n"
    names = site.world.data / "names.map"
    names.write_text(
        "shop.localhost one\n" + "".join(f"n{i}.localhost one\n" for i in range(arguments.endpoints))
    )
    by_hand = bare.replace(f":{BARE}", f":{BY_HAND}").replace(
        "    default_backend one\n", f"{_FORWARDING}    use_backend %[req.hdr(host),lower,map({names})]\n"
    )
    async with (
        _haproxy(site, site.fabric.sandbox(one.replica), _REPLICA, "replica"),
        _haproxy(site, site.world.host, bare, "bare"),
        _haproxy(site, site.world.host, by_hand, "by-hand"),
    ):
        await site.tell(shop)
        await _throughput(report, "throughput", site, arguments)
        await _many(site, one, arguments.endpoints)
        await _throughput(report, f"throughput among {arguments.endpoints} endpoints", site, arguments)
        await _changes(report, site, shop, one, arguments)


async def _throughput(report: Report, name: str, site: Site, arguments: argparse.Namespace) -> None:
    rates: dict[int, list[float]] = {HTTP: [], BARE: [], BY_HAND: []}
    for _ in range(arguments.rounds):
        for port, found in rates.items():
            found.append(await _wrk(site, port, arguments))
    peers = {
        BARE: ("x bare HAProxy", "which leads everything to one place"),
        BY_HAND: ("x HAProxy by hand", "which looks up the name and sets the same headers"),
    }
    for port, (unit, what) in peers.items():
        ratio = statistics.median(a / b for a, b in zip(rates[HTTP], rates[port], strict=True))
        report.add(
            name,
            ratio,
            unit,
            target=Target("at least", 0.95),
            note=f"median of {arguments.rounds} pairs; endpoint {statistics.median(rates[HTTP]):.0f}/s, "
            f"the other, {what}, {statistics.median(rates[port]):.0f}/s; keep-alive, {arguments.connections} "
            f"connections, {arguments.seconds} s each; access log on",
        )


async def _changes(
    report: Report, site: Site, shop: EdgeEndpoint, one: PortConfig, arguments: argparse.Namespace
) -> None:
    """From the call to the answer: then new requests are led as it says."""
    took = []
    for number in range(arguments.changes):
        server = EdgeServer(
            replica="web-0", revision=number + 2, network=one.network, address=one.address, port=8080
        )
        began = time.perf_counter()
        await site.tell(EdgeEndpoint(id=shop.id, host=shop.host, servers=(server,)))
        took.append((time.perf_counter() - began) * 1000)
    note = f"median of {len(took)} switches of an endpoint among {arguments.endpoints}, on a running HAProxy"
    report.add("a change is in force", statistics.median(took), "ms", target=Target("at most", 50), note=note)
    worst = statistics.quantiles(took, n=20)[-1]
    report.add("a change is in force, p95", worst, "ms", target=Target("at most", 50), note=note)


async def _many(site: Site, one: PortConfig, count: int) -> None:
    for first in range(0, count, 100):
        some = [endpoint(f"n{number}.localhost", one) for number in range(first, min(first + 100, count))]
        await site.tell(*some, app=AppId(new_id()))


async def _way(site: Site, one: PortConfig) -> str:
    """The one that the edge uses, too."""
    (found,) = (await site.fabric.ways.lead({(one.network, one.address, 8080)})).values()
    return f"{found[0]}:{found[1]}"


async def _wrk(site: Site, port: int, arguments: argparse.Namespace) -> float:
    said = await site.client(
        *("wrk", "-t1", f"-c{arguments.connections}", f"-d{arguments.seconds}s"),
        *("-H", "Host: shop.localhost", f"http://{HOST}:{port}/"),
    )
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"not every request was answered:\n{said}")
    return float(_RATE.findall(said)[0])


@asynccontextmanager
async def _haproxy(site: Site, where: Path, text: str, name: str) -> AsyncIterator[None]:
    config = site.world.data / f"{name}.cfg"
    config.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net={where}", "haproxy", "-db", "-f", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # as the edge's: the kernel shares out time by sessions
    )
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    main()

"""What a call of a host's port costs: directly, over the bus in one process, and over RabbitMQ.

`python -m tests.bench.calls [BUS_URL]` prints one line for each way: calls one after the other, and many at
once.  Commands have their receipts on a real disk, with fsync.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from skep.agent.service import served_host
from skep.bus.client import CallClient
from skep.bus.opening import open_bus
from skep.bus.stamps import Stamp, stamped
from skep.model.ids import HostName, NetworkId
from skep.providers.remote.fabric import RemoteFabric
from skep.providers.remote.line import Line
from skep.providers.simulated import SimulatedHost

SERIAL = 200
MANY = 2000
AT_ONCE = 200
HOST = HostName("bench")

Do = Callable[[int], Awaitable[object]]


async def serial(do: Do) -> list[float]:
    """Seconds of each call."""
    took = []
    for number in range(SERIAL):
        begun = time.perf_counter()
        await do(number)
        took.append(time.perf_counter() - begun)
    return took


async def per_second(do: Do) -> float:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with free:
            await do(number)

    begun = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(MANY)))
    return MANY / (time.perf_counter() - begun)


async def report(name: str, do: Do) -> None:
    took = sorted(await serial(do))
    rate = await per_second(do)
    median, late = statistics.median(took) * 1000, took[int(len(took) * 0.99)] * 1000
    print(f"{name:28} {median:8.3f} ms median {late:8.3f} ms p99 {rate:10.0f} /s")


async def remote(stack: AsyncExitStack, host: SimulatedHost, folder: Path, url: str) -> RemoteFabric:
    near = await stack.enter_async_context(open_bus(url))
    far = await stack.enter_async_context(open_bus(url)) if url else near
    await stack.enter_async_context(served_host(far, HOST, host, folder / f"receipts-{bool(url)}.db"))
    calls = await stack.enter_async_context(CallClient(near, f"bench-{time.time_ns()}"))
    return RemoteFabric(Line(calls, HOST, "fabric"))


async def measure(url: str) -> None:
    host = SimulatedHost.make()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        async with AsyncExitStack() as stack:
            ways = {"in one process": await remote(stack, host, Path(name), "")}
            if url:
                ways["over RabbitMQ"] = await remote(stack, host, Path(name), url)
            await report("query, directly", lambda number: host.fabric.networks())
            for way, fabric in ways.items():
                await report(f"query, {way}", lambda number, fabric=fabric: fabric.networks())  # type: ignore[misc]
                with stamped(Stamp(run="bench", step="bench")):
                    await report(
                        f"command, {way}",
                        lambda number, fabric=fabric: fabric.delete_network(NetworkId(str(number))),  # type: ignore[misc]
                    )


if __name__ == "__main__":
    uvloop.run(measure(sys.argv[1] if len(sys.argv) > 1 else ""))

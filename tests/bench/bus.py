"""`make bench-bus`: how fast messages travel, within one process and over a real RabbitMQ on this machine.

One JSON line per figure on stdout, a table at the end on stderr.  The broker keeps what it confirmed on disk.
"""

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import uvloop
from tests.bench.report import Report

from skep.bus.bus import Bus, Message
from skep.bus.opening import open_bus

SCRIPT = Path(__file__).parents[2] / "scripts" / "rabbitmq"
KEY = "agent.bench"
BODY = bytes(512)
SENDERS = 64


class Counter:
    """Handles messages, and knows when so many came."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.done = asyncio.Event()

    async def take(self, _message: Message) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


async def throughput(bus: Bus, count: int) -> float:
    """Commands per second from `send` to the end of the handler, by 64 senders at a time."""
    counter = Counter(count)
    numbers = iter(range(count))

    async def sender() -> None:
        for number in numbers:
            await bus.send(KEY, Message(id=str(number), body=BODY))

    async with bus.serve(KEY, counter.take):
        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(SENDERS)), counter.done.wait())
        return count / (time.perf_counter() - started)


async def latencies(bus: Bus, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until a lone `send` returns, and until its message is with the handler."""
    arrivals: asyncio.Queue[float] = asyncio.Queue()

    async def take(_message: Message) -> None:
        arrivals.put_nowait(time.perf_counter())

    kept, delivered = [], []
    async with bus.serve(KEY, take):
        for number in range(count):
            started = time.perf_counter()
            await bus.send(KEY, Message(id=str(number), body=BODY))
            kept.append((time.perf_counter() - started) * 1000)
            delivered.append((await arrivals.get() - started) * 1000)
    return kept, delivered


async def events(bus: Bus, count: int) -> float:
    """Events per second to one listener, published as fast as it hears them."""
    async with bus.subscribe("event.bench") as heard:
        started = time.perf_counter()
        for _ in range(count // 100):
            for _ in range(100):
                bus.publish("event.bench.replica", BODY)
            for _ in range(100):
                await anext(heard)
        return count / (time.perf_counter() - started)


async def measure(report: Report, name: str, url: str, scale: float) -> None:
    async with opened(url) as bus:
        count = int(20_000 * scale)
        note = f"{count} of 512 bytes, {SENDERS} senders, durable, one server and sender in one process"
        report.add(f"{name}: commands", await throughput(bus, count), "/s", note=note)
        kept, delivered = await latencies(bus, int(2_000 * scale))
        for what, values in (("send returns", kept), ("with the handler", delivered)):
            p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
            report.add(f"{name}: {what}, median", p50, "ms", note="one at a time")
            report.add(f"{name}: {what}, p99", p99, "ms", note="one at a time")
        report.add(f"{name}: events", await events(bus, count), "/s", note="batches of 100, one listener")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Bus]:
    async with open_bus(url) as bus:
        await bus.declare(KEY)
        yield bus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    scale = 0.1 if parser.parse_args().quick else 1.0
    report = Report()
    uvloop.run(measure(report, "in-process", "", scale))
    directory = tempfile.mkdtemp(prefix="skep-bench-bus-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(script, "stop", directory)
        uvloop.run(measure(report, "RabbitMQ", script("start", directory), scale))
    report.print_table()


def script(command: str, directory: str) -> str:
    return subprocess.run(
        [SCRIPT, command, directory], check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()

"""`make bench-bus`, too: what a call of a host's port costs, within one process and over a real RabbitMQ.

One JSON line per figure on stdout, a table at the end on stderr.  Commands have their receipts and answers on
the disk below /var/tmp, flushed.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests.bench.bus import script
from tests.bench.report import Report
from tests.trust.conftest import enrol

from skep.agent.service import served_host
from skep.bus.client import CallClient
from skep.bus.opening import open_bus
from skep.bus.signing import SignedBus
from skep.bus.stamps import Stamp, stamped
from skep.model.ids import HostName, NetworkId
from skep.providers.remote.fabric import RemoteFabric
from skep.providers.remote.line import Line
from skep.providers.simulated import SimulatedHost
from skep.trust.authority import Authority
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

SERIAL = 200
MANY = 2000
AT_ONCE = 200
ROUNDS = 5
HOST = HostName("bench")

Do = Callable[[int], Awaitable[object]]


async def serial(do: Do, count: int) -> list[float]:
    """Seconds of each call."""
    took = []
    for number in range(count):
        begun = time.perf_counter()
        await do(number)
        took.append(time.perf_counter() - begun)
    return took


async def per_second(do: Do, count: int) -> float:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with free:
            await do(number)

    begun = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    return count / (time.perf_counter() - begun)


async def figures(report: Report, name: str, do: Do, scale: float) -> None:
    took = sorted(await serial(do, int(SERIAL * scale)))
    report.add(f"{name}, median", statistics.median(took) * 1000, "ms", note="one at a time")
    report.add(f"{name}, p99", took[int(len(took) * 0.99)] * 1000, "ms", note="one at a time")
    worked, count = time.process_time(), int(MANY * scale)
    rate = await per_second(do, count)
    worked = time.process_time() - worked
    report.add(f"{name}", rate, "/s", note=f"{AT_ONCE} at a time")
    report.add(f"{name}, processor time", worked / count * 1000, "ms", note="asker and host, each call")


class EachSigned(Signatures):
    """As it was before processes shared keys: every message has a signature of its own."""

    def sign(self, content: bytes, to: bytes = b"") -> bytes:
        return super().sign(content)


KINDS: dict[str, type[Signatures] | None] = {
    "unsigned": None,
    "each signed": EachSigned,
    "signed": Signatures,
}


async def remote(
    stack: AsyncExitStack, host: SimulatedHost, folder: Path, url: str, signer: type[Signatures] | None
) -> RemoteFabric:
    near = await stack.enter_async_context(open_bus(url))
    far = await stack.enter_async_context(open_bus(url)) if url else near
    if signer is not None:
        authority = Authority.make("bench", time.time())
        near = SignedBus(near, signer(enrol(authority, folder / "control", Role.WORKER, "worker")))
        far = SignedBus(far, signer(enrol(authority, folder / "agent", Role.AGENT, HOST)))
    await stack.enter_async_context(served_host(far, HOST, host, folder / "receipts.db"))
    calls = await stack.enter_async_context(CallClient(near, f"bench-{time.time_ns()}"))
    return RemoteFabric(Line(calls, HOST, "fabric"))


async def measure(report: Report, name: str, url: str, scale: float) -> None:
    host = SimulatedHost.make()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        async with AsyncExitStack() as stack:
            fabric = await remote(stack, host, Path(folder), url, None)

            def remove(number: int) -> Awaitable[object]:
                return fabric.delete_network(NetworkId(str(number)))

            await figures(report, f"{name}: query", lambda number: fabric.networks(), scale)
            with stamped(Stamp(run="bench", step="bench")):
                await figures(report, f"{name}: command", remove, scale)


async def compare(report: Report, name: str, url: str, scale: float) -> None:
    """What signatures cost: kind after kind, in rounds, so that all share what else the machine does."""
    spent: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for kind, signer in KINDS.items():
            with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                async with AsyncExitStack() as stack:
                    fabric = await remote(stack, SimulatedHost.make(), Path(folder), url, signer)
                    for what, do in _works(fabric).items():
                        await do(-1)  # both sides have heard of each other
                        spent.setdefault(f"{what}, {kind}", []).append(
                            await _spent(do, int(MANY * scale / 4))
                        )
    for what, rounds in spent.items():
        plain = spent[f"{what.partition(',')[0]}, unsigned"]
        worked, rate = (statistics.median(one) for one in zip(*rounds, strict=True))
        beside, _ = (statistics.median(one) for one in zip(*plain, strict=True))
        note = f"median of {ROUNDS} rounds in turn, asker and host, each call"
        report.add(
            f"{name}: {what}, processor time", worked, "ms", peer="unsigned", peer_value=beside, note=note
        )
        report.add(f"{name}: {what}", rate, "/s", note=f"{AT_ONCE} at a time")


def _works(fabric: RemoteFabric) -> dict[str, Do]:
    async def command(number: int) -> None:
        with stamped(Stamp(run="bench", step="bench")):
            await fabric.delete_network(NetworkId(str(number)))

    return {"query": lambda number: fabric.networks(), "command": command}


async def _spent(do: Do, count: int) -> tuple[float, float]:
    """Milliseconds of processor time of a call, and calls per second."""
    worked = time.process_time()
    rate = await per_second(do, count)
    return (time.process_time() - worked) / count * 1000, rate


def signatures(report: Report, count: int = 2000) -> None:
    """Of the kind that is used, and of Ed25519."""
    content = bytes(600)
    elliptic, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    kind = ec.ECDSA(hashes.SHA256())
    made, other = elliptic.sign(content, kind), edwards.sign(content)
    works: dict[str, Callable[[], object]] = {
        "ECDSA P-256: sign": lambda: elliptic.sign(content, kind),
        "ECDSA P-256: verify": lambda: elliptic.public_key().verify(made, content, kind),
        "Ed25519: sign": lambda: edwards.sign(content),
        "Ed25519: verify": lambda: edwards.public_key().verify(other, content),
    }
    for name, work in works.items():
        begun = time.perf_counter()
        for _ in range(count):
            work()
        report.add(name, (time.perf_counter() - begun) / count * 1e6, "µs", note="600 bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    scale = 0.1 if parser.parse_args().quick else 1.0
    report = Report()
    signatures(report)
    uvloop.run(measure(report, "in-process", "", scale))
    uvloop.run(compare(report, "in-process", "", scale))
    directory = tempfile.mkdtemp(prefix="skep-bench-")
    try:
        url = script("start", directory)
        uvloop.run(measure(report, "RabbitMQ, unsigned", url, scale))
        uvloop.run(compare(report, "RabbitMQ", url, scale))
    finally:
        script("stop", directory)
        shutil.rmtree(directory, ignore_errors=True)
    report.print_table()


if __name__ == "__main__":
    main()

"""`make bench-dns`: our resolver beside kept servers, which answer for the same network in the same run.

500 replicas of two apps, which both have `web-0`.  Questions come from a replica of one of them by a veth
pair, without the rules of networks, which bound questions per replica.
"""

import argparse
import ctypes
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from dnslib import DNSRecord
from tests.bench.dns_servers import APPS, GATEWAY, REPLICAS, Dnsmasq, Ours, Server, Unbound
from tests.bench.plain_network import Namespaces, ip
from tests.bench.report import Report, Target

from skep.providers.local.network.naming import NETNS

ASKER = "10.1.1.7"
"""The eighth replica of the first app."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of questions in each turn")
    parser.add_argument("--networks", type=int, default=100, help="of our process, for its memory")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: network namespaces need root: run it with sudo.")
    report = Report()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gateway, asker = _pair(Namespaces(stack))
            measure(report, arguments, gateway, asker, folder)
            measure_memory(report, Namespaces(stack), arguments.networks, folder)
    finally:
        report.print_table()


def _pair(made: Namespaces) -> tuple[str, str]:
    gateway, asker = made.make("g").name, made.make("a").name
    ip("-n", gateway, "link", "add", "br0", "type", "veth", "peer", "name", "eth0", "netns", asker)
    for name, device, address in ((gateway, "br0", GATEWAY), (asker, "eth0", ASKER)):
        ip("-n", name, "address", "add", f"{address}/16", "dev", device)
        ip("-n", name, "link", "set", device, "up")
    return gateway, asker


def measure(report: Report, arguments: argparse.Namespace, gateway: str, asker: str, folder: Path) -> None:
    """The servers in turn, several times; the best turn of each counts."""
    questions = folder / "questions"
    questions.write_text(
        "".join(f"web-{number}.{app} A\nweb-{number} A\n" for app in APPS for number in range(REPLICAS))
    )
    makers: list[Callable[[Path], Server]] = [
        lambda _: Ours(gateway),
        lambda place: Unbound(gateway, place),
        lambda place: Dnsmasq(gateway, place),
    ]
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(arguments.rounds):
        for maker in makers:
            place = folder / f"{turn}-{len(found)}-{makers.index(maker)}"
            place.mkdir()
            server = maker(place)
            try:
                found.setdefault(server.name, []).append(_turn(server, asker, questions, arguments.seconds))
            finally:
                server.stop()
    ours = found.pop("skep")
    for name, unit, best, target in FIGURES:
        for peer, turns in found.items():
            report.add(
                f"{name} / {peer}",
                best(turn[name] for turn in ours),
                unit,
                target=target,
                peer=peer,
                peer_value=best(turn[name] for turn in turns),
                note=f"best of {arguments.rounds} turns; {2 * REPLICAS} replicas, one processor for a server",
            )


FIGURES = (
    ("questions answered", "per s", max, Target("at least", 5_000)),
    ("processor time of a question", "us", min, Target("at most", 100)),
    ("latency p50", "us", min, Target("at most", 500)),
    ("latency p99", "us", min, Target("at most", 2_000)),
    ("a new name is answered after", "ms", min, Target("at most", 10)),
    ("addresses of the other app by a name that both have", "", min, Target("at most", 0)),
)


def _turn(server: Server, asker: str, questions: Path, seconds: int) -> dict[str, float]:
    before = server.seconds()
    command = [
        "ip",
        "netns",
        "exec",
        asker,
        "dnsperf",
        "-s",
        GATEWAY,
        "-d",
        str(questions),
        "-l",
        str(seconds),
    ]
    text = subprocess.run([*command, "-q", "50"], capture_output=True, text=True, check=True).stdout
    rows = dict(row.strip().split(":", 1) for row in text.splitlines() if ":" in row)
    done = int(rows["Queries completed"].split()[0])
    busy = server.seconds() - before
    with _mouth(asker) as mouth:
        took = sorted(_latencies(mouth, 2000))
        changed = _change(server, mouth)
        strangers = len(set(_ask(mouth, "web-3")) - {"10.1.1.3"})
    return {
        "questions answered": done / seconds,
        "processor time of a question": busy / done * 1e6,
        "latency p50": statistics.median(took) * 1e6,
        "latency p99": took[len(took) * 99 // 100] * 1e6,
        "a new name is answered after": changed * 1e3,
        "addresses of the other app by a name that both have": strangers,
    }


def _mouth(namespace: str) -> socket.socket:
    """A socket in the namespace, which this thread enters for a moment."""
    with Path("/proc/self/ns/net").open() as own, (NETNS / namespace).open() as there:
        try:
            _enter(there.fileno())
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            _enter(own.fileno())
    made.settimeout(5)
    return made


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


def _ask(mouth: socket.socket, name: str) -> list[str]:
    mouth.sendto(DNSRecord.question(name).pack(), (GATEWAY, 53))
    return [str(one.rdata) for one in DNSRecord.parse(mouth.recv(2000)).rr]


def _latencies(mouth: socket.socket, count: int) -> Iterator[float]:
    packets = [bytes(DNSRecord.question(f"web-{number}").pack()) for number in range(100)]
    for number in range(count):
        began = time.perf_counter()
        mouth.sendto(packets[number % 100], (GATEWAY, 53))
        mouth.recv(2000)
        yield time.perf_counter() - began


def _change(server: Server, mouth: socket.socket) -> float:
    """Seconds from the change to the first question that is answered with it."""
    name = f"fresh-{time.monotonic_ns()}"
    began = time.perf_counter()
    server.add(name, "10.1.9.9")
    while _ask(mouth, name) != ["10.1.9.9"]:
        assert time.perf_counter() - began < 10, f"{server.name} never answers {name}"
    return time.perf_counter() - began


def measure_memory(report: Report, made: Namespaces, count: int, folder: Path) -> None:
    """Of networks with 20 replicas: ours in one process; the others in one each, told from ten of them."""
    names = [made.make(f"m{number}").name for number in range(count)]
    for name in names:
        ip("-n", name, "address", "add", f"{GATEWAY}/32", "dev", "lo")
    one = _weighed([Ours(names[0], replicas=10)])
    ours = _weighed([Ours(*names, replicas=10)]) - one
    others: list[tuple[str, list[Server]]] = [
        ("unbound", [Unbound(name, folder, 10) for name in names[:10]]),
    ]
    others.append(("dnsmasq", []))
    for peer, servers in others:
        many = servers or [Dnsmasq(name, folder, 10) for name in names[:10]]
        report.add(
            f"memory of {count} networks / {peer}",
            ours,
            "MiB",
            target=Target("at most", 50),
            peer=peer,
            peer_value=_weighed(many) * count / len(many),
            note=f"PSS; ours: what {count - 1} networks add to a process that has {one:.0f} MiB",
        )


def _weighed(servers: Sequence[Server]) -> float:
    try:
        return sum(server.memory() for server in servers)
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()

"""`make bench-engine`: how fast containers start and what skep weighs, beside podman in the same run.

Each container has its own port with a fixed address, and in skep its own system disk with a quota; skep's
state is durable (SQLite, WAL, synchronous=FULL) before anything is acknowledged.  The image is warm.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.installation import Installation, Json
from tests.bench.podman import Podman
from tests.bench.processes import cpu_percent, resident
from tests.bench.report import Report, Target

IMAGE = "busybox:latest"
THEIRS = f"localhost/{IMAGE}"
SLEEP = ["/bin/sleep", "100000"]
PARALLEL = 4
"""As many `podman run` at once as start the most per second on two processors."""


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("error: containers need root: run it with sudo.")
    report = Report()
    with ExitStack() as stack:
        archive = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "busybox.tar"
        subprocess.run(["scripts/base-image", str(archive)], check=True)
        peer = prepared_peer(stack, archive)
        skep = stack.enter_context(
            Installation(
                instance="skepbench", networks="10.64.0.0/12", links="100.101.0.0/16", pool_size="20GiB"
            )
        )
        try:
            measure_idle(report, skep, arguments.idle)
            skep.import_image(archive, IMAGE)
            measure_single(report, skep, peer, arguments.singles)
            measure_burst(report, skep, peer, arguments.burst)
            measure_weight(report, skep, arguments.many, arguments.idle)
        finally:
            report.print_table()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", type=int, default=20, help="apps applied one after the other")
    parser.add_argument("--burst", type=int, default=100, help="replicas of one app applied at once")
    parser.add_argument("--many", type=int, default=500, help="running containers to weigh the agent with")
    parser.add_argument("--idle", type=float, default=10, help="seconds to measure processor time")
    return parser.parse_args()


def prepared_peer(stack: ExitStack, archive: Path) -> Podman | None:
    if not Podman.usable():
        print("podman, iptables or runc is missing: no peer is measured", file=sys.stderr)
        return None
    peer = stack.enter_context(Podman())
    peer.prepare(archive, IMAGE)
    return peer


def measure_idle(report: Report, skep: Installation, seconds: float) -> None:
    first = skep.start()
    skep.stop()
    again = skep.start()
    report.add("up", again, "s", target=Target("at most", 3), note=f"data there; first time {first:.2f} s")
    time.sleep(2)
    report.add("idle memory", resident(skep.pid), "MB", target=Target("at most", 150), note="VmRSS, 0 apps")
    report.add(
        "idle processor",
        cpu_percent(skep.pid, seconds),
        "%",
        target=Target("at most", 1),
        note=f"{seconds:g} s",
    )


def measure_single(report: Report, skep: Installation, peer: Podman | None, count: int) -> None:
    took = []
    for number in range(count):
        app = f"single{number}"
        began = time.monotonic()
        run = skep.apply(app, one_service(1))
        skep.wait_running(app, 1, poll=0.005, timeout=60)
        took.append(time.monotonic() - began)
        if run:
            skep.wait_run(run)
    theirs = [peer.start(f"single{number}", THEIRS, SLEEP) for number in range(count)] if peer else []
    report.add(
        "apply to running, p50",
        statistics.median(took) * 1000,
        "ms",
        target=Target("at most", 250),
        peer="podman run -d",
        peer_value=statistics.median(theirs) * 1000 if theirs else None,
        note=f"{count} apps one by one, request sent to state seen; slowest {max(took) * 1000:.0f} ms",
    )
    for number in range(count):
        skep.remove(f"single{number}")
    if peer:
        peer.remove_all()


def measure_burst(report: Report, skep: Installation, peer: Podman | None, count: int) -> None:
    began = time.monotonic()
    run = skep.apply("burst", one_service(count))
    skep.wait_running("burst", count, poll=0.1, timeout=300)
    took = time.monotonic() - began
    if run:
        skep.wait_run(run)
    skep.remove("burst")
    theirs = None
    if peer:
        theirs = count / peer.start_many("burst", count, THEIRS, SLEEP, parallel=PARALLEL)
        peer.remove_all()
    report.add(
        "replicas started per second",
        count / took,
        "1/s",
        target=Target("at least", 25, ratio=3),
        peer=f"podman run -d, {PARALLEL} at once",
        peer_value=theirs,
        note=f"{count} replicas in one apply: {took:.1f} s",
    )


def measure_weight(report: Report, skep: Installation, count: int, seconds: float) -> None:
    run = skep.apply("many", one_service(count))
    skep.wait_running("many", count, poll=1, timeout=1200)
    if run:
        skep.wait_run(run)
    time.sleep(5)
    name = f"with {count} containers"
    report.add(f"memory {name}", resident(skep.pid), "MB", target=Target("at most", 200), note="VmRSS")
    report.add(
        f"processor {name}",
        cpu_percent(skep.pid, seconds),
        "%",
        target=Target("at most", 5),
        note=f"{seconds:g} s, control plane and agent in one process",
    )


def one_service(replicas: int) -> Json:
    resources = {"memory": 16 * 1024 * 1024, "pids": 16}
    return {
        "sleeper": {
            "image": IMAGE,
            "command": SLEEP,
            "replicas": replicas,
            "resources": resources,
            "stop_grace_period": 0.0,
        }
    }


if __name__ == "__main__":
    main()

"""`make bench-kubernetes`: apps in a cluster beside `kubectl apply` of the same pods, in the same run.

Then thousands of pods on hollow nodes (`kubernetes_hollow`).  The cluster is one of its own, which is raised
if it is not up, and taken down again then, also if the bench is told to end (SIGTERM, Ctrl-C).  One that was
killed leaves a mark: the next one begins by taking down what that left.
"""

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench import kubernetes_hollow, kubernetes_pair
from tests.bench.installation import sweep
from tests.bench.kubernetes_zone import INSTANCE, zone
from tests.bench.report import Report
from tests.cluster.kubernetes import layout
from tests.cluster.kubernetes.cluster import Cluster, planned
from tests.cluster.kubernetes.progress import say

_OURS = "of-bench"
"""A file in the folder of a cluster that a bench raised."""


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("error: the test cluster needs root: run it with sudo.")
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    report, began = Report(), time.monotonic()
    with alone(), raised(arguments.name) as cluster, zone(cluster) as there:
        try:
            if arguments.replicas:
                replicas, rounds = arguments.replicas, arguments.rounds
                kubernetes_pair.measure(report, there, replicas=replicas, rounds=rounds, idle=arguments.idle)
            if arguments.hollow:
                nodes, pods = arguments.hollow, arguments.pods
                kubernetes_hollow.measure(report, there, nodes=nodes, pods=pods, idle=arguments.idle)
        finally:
            report.print_table()
    say(f"all of it took {time.monotonic() - began:.0f} s")


@contextmanager
def alone() -> Iterator[None]:
    """One at a time, since the next one takes away what others left."""
    layout.STATE.mkdir(parents=True, exist_ok=True)
    with (layout.STATE / f"{_OURS}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("error: another one is under way.")
        yield


@contextmanager
def raised(name: str) -> Iterator[Cluster]:
    """The cluster of that name; one that somebody else has up stays up."""
    sweep(INSTANCE)
    cluster = Cluster(planned(name)) if layout.saved(name) else None
    if cluster is not None and (cluster.layout.folder / _OURS).exists():
        say("taking down what a bench left that was killed")
        cluster.down()
        cluster = None
    ours = cluster is None
    cluster = cluster or Cluster(planned(name))
    try:
        if ours:
            (cluster.layout.folder / _OURS).touch()
        cluster.up()
        yield cluster
    finally:
        if ours:
            say("taking the cluster down")
            cluster.down()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 20, 100], help="started at once")
    parser.add_argument("--rounds", type=int, default=5, help="of each at the most, one side after the other")
    parser.add_argument("--hollow", type=int, default=50, metavar="NODES", help="0: none")
    parser.add_argument("--pods", type=int, default=2000, help="on them, in hundreds")
    parser.add_argument("--name", default="bench", help="of the test cluster (%(default)s)")
    parser.add_argument("--idle", type=float, default=30, help="seconds in which nothing happens")
    return parser.parse_args()


if __name__ == "__main__":
    main()

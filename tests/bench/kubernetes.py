"""`make bench-kubernetes`: replicas in a cluster beside `kubectl apply` of the same pods, in the same run.

Then thousands of pods on hollow nodes (`kubernetes_hollow`).  The cluster is one of its own, which is raised
if it is not up, and taken down again then.  Both sides start the same template from the same image, which
nodes have already, one after the other, several times; the figure is the median.  Requests are those that
skep's own clients make.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench import kubernetes_hollow
from tests.bench.report import Report, Target
from tests.cluster.kubernetes import layout
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.cluster.kubernetes.cluster import planned
from tests.providers.kubernetes.yard import ALWAYS, Yard, yard

from skep.model.host import ContainerSpec
from skep.providers.kubernetes.pods.engine import ClusterEngine
from skep.providers.kubernetes.pods.templates import Given, template

SLEEP = ("/bin/sleep", "100000")


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("error: the test cluster needs root: run it with sudo.")
    report = Report()
    with raised(arguments.name) as cluster:
        try:
            asyncio.run(measure(report, cluster, arguments))
            if arguments.hollow:
                nodes, pods = arguments.hollow, arguments.pods
                kubernetes_hollow.measure(report, cluster, nodes=nodes, pods=pods, idle=arguments.idle)
        finally:
            report.print_table()


@contextmanager
def raised(name: str) -> Iterator[ACluster]:
    """The cluster of that name; one that was up before stays up."""
    ours = layout.saved(name) is None
    cluster = ACluster(planned(name))
    try:
        cluster.up()
        yield cluster
    finally:
        if ours:
            cluster.down()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 20, 100], help="started at once")
    parser.add_argument("--rounds", type=int, default=3, help="of each, one side after the other")
    parser.add_argument("--hollow", type=int, default=50, metavar="NODES", help="0: none")
    parser.add_argument("--pods", type=int, default=2000, help="on them, in hundreds")
    parser.add_argument("--name", default="bench", help="of the test cluster (%(default)s)")
    parser.add_argument("--idle", type=float, default=60, help="seconds in which nothing happens")
    return parser.parse_args()


async def measure(report: Report, cluster: ACluster, arguments: argparse.Namespace) -> None:
    for count in arguments.replicas:
        ours, theirs, asked, idle = [], [], [], []
        for number in range(arguments.rounds):
            last = number == arguments.rounds - 1
            took, requests, quiet = await by_skep(cluster, count, arguments.idle if last else 0.0)
            ours.append(took)
            asked.append(requests)
            idle.append(quiet)
            theirs.append(await asyncio.to_thread(by_kubectl, cluster, count))
        add(report, count, ours, theirs, arguments.rounds)
        asked_of = f"requests for {count} replicas"
        report.add(asked_of, statistics.median(asked), "requests", note="one of them labels each pod")
        report.add(f"{asked_of} at rest", idle[-1], "requests", note=f"in {arguments.idle:g} s")


def add(report: Report, count: int, ours: list[float], theirs: list[float], rounds: int) -> None:
    peer = statistics.median(theirs)
    report.add(
        f"{count} replicas ready",
        statistics.median(ours),
        "s",
        target=Target("at most", 1.1 * peer),
        peer="kubectl apply",
        peer_value=peer,
        note=f"median of {rounds}; {spread(ours)}, {spread(theirs)}",
    )


def spread(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


async def by_skep(cluster: ACluster, count: int, idle: float) -> tuple[float, int, int]:
    """Seconds to all ready, requests until then, and requests in as many seconds of rest."""
    with yard(cluster) as place:
        async with place.engine() as engine:
            await engine.list()  # it knows the cluster
            requests = counted(engine)
            began = time.monotonic()
            await asyncio.gather(*(ready(engine, spec) for spec in replicas(place, count)))
            took, asked = time.monotonic() - began, requests()
            await asyncio.sleep(idle)
            quiet = requests() - asked
        await asyncio.to_thread(cleared, place)
    return took, asked, quiet


async def ready(engine: ClusterEngine, spec: ContainerSpec) -> None:
    await engine.start(spec)
    await engine.wait_ready(spec.id)


def by_kubectl(cluster: ACluster, count: int) -> float:
    """Seconds until the Deployment says that all are available."""
    with yard(cluster) as place:
        manifests = json.dumps(deployment(place, count))
        began = time.monotonic()
        place.kubectl("apply", "--filename=-", stdin=manifests)
        place.kubectl("rollout", "status", "deployment/web", "--timeout=900s")
        took = time.monotonic() - began
        cleared(place)
    return took


def cleared(place: Yard) -> None:
    """The next round finds empty nodes."""
    place.kubectl("delete", "deployments,pods", "--all", "--grace-period=1", "--wait=false")
    place.kubectl("wait", "pods", "--all", "--for=delete", "--timeout=900s")


def replicas(place: Yard, count: int) -> list[ContainerSpec]:
    return [
        place.spec(*SLEEP, restart=ALWAYS, name=f"shop/web-{number}", hostname=f"web-{number}")
        for number in range(count)
    ]


def deployment(place: Yard, count: int) -> dict[str, Any]:
    """Of the same pods, with the same Secret."""
    (spec,) = replicas(place, 1)
    made = template(spec, Given(image=place.image, secret="web"))
    made["metadata"] = {"labels": {"app": "web"}}
    body = {"replicas": count, "selector": {"matchLabels": {"app": "web"}}, "template": made}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "web-env"},
        "stringData": spec.environment,
    }
    web = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": body}
    return {"apiVersion": "v1", "kind": "List", "items": [secret, web]}


def counted(engine: ClusterEngine) -> Callable[[], int]:
    """How many requests its clients have made since."""
    seen = 0

    async def note(_: object) -> None:
        nonlocal seen
        seen += 1

    connection: Any = engine._cluster
    for client in (connection.http, connection._client._client._client):
        client.event_hooks = {"request": [note]}
    return lambda: seen


if __name__ == "__main__":
    main()

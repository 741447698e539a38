"""Thousands of pods on hollow nodes: what skep weighs beside them, and how soon it knows all of them again.

The nodes are kubemark's: kubelets that only say they run containers, so everything above them is real, and
the machine carries many.  A tenant has one app of a hundred replicas.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.installation import Installation
from tests.bench.kubernetes_zone import IMAGE, PATIENCE, ZONE, Zone, run_of, until
from tests.bench.processes import cpu_percent, cpu_seconds, resident
from tests.bench.report import Report, Target
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.control_plane import MANAGER
from tests.cluster.kubernetes.progress import say

_OF_EACH = 100
"""Replicas of an app."""
_RESYNC = 10.0
_LOOK = 5.0
"""Seconds between two looks at how far it is, which cost skep processor time, too."""
Json = dict[str, Any]


def measure(report: Report, zone: Zone, *, nodes: int, pods: int, idle: float) -> None:
    """Rows about so many pods, while the cluster has nothing else to do."""
    skep, tenants = zone.skep, [f"tenant-{number}" for number in range(pods // _OF_EACH)]
    what = f"{pods} pods on {nodes} hollow nodes"
    with _hollow(zone.cluster, nodes):
        _weigh(report, zone, "no pods", idle)
        for tenant in tenants:
            skep.http.post("/v1/tenants", json={"name": tenant}).raise_for_status()
        _fill(report, zone, tenants, what)
        _weigh(report, zone, what, idle)
        _resync(report, zone, tenants)


def _fill(report: Report, zone: Zone, tenants: list[str], what: str) -> None:
    skep, pods = zone.skep, len(tenants) * _OF_EACH
    zone.mark()
    worked, began = cpu_seconds(skep.pid), time.monotonic()
    runs = _apply(skep, tenants)
    while sum(map(skep.has_succeeded, runs)) < len(runs):
        done = _running(skep, tenants)
        say(f"{done} of {pods} pods run after {time.monotonic() - began:.0f} s")
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"{done} of {pods} pods run after {PATIENCE:.0f} s")
        time.sleep(_LOOK)
    until(lambda: _running(skep, tenants) == pods, "all of them run")
    took, spent = time.monotonic() - began, cpu_seconds(skep.pid) - worked
    note = f"{len(tenants)} tenants at once, {pods / took:.0f} pods/s"
    report.add(f"{what}: ready", took, "s", note=note)
    note = "API, runs, database, cluster"
    report.add("processor time of skep until then", spent * 1000 / pods, "ms/pod", note=note)
    requests, _, which = zone.requests()
    report.add("requests until then", requests / pods, "requests/pod", note=which)


def _weigh(report: Report, zone: Zone, what: str, idle: float) -> None:
    """Beside the controllers of the cluster itself, which hold the same objects in memory."""
    skep, manager = zone.skep, zone.cluster.control.pid(MANAGER)
    note = f"VmRSS of `skep up`; {MANAGER}: {resident(manager):.0f}"
    report.add(f"memory, {what}", resident(skep.pid), "MB", note=note)
    zone.mark()
    before = cpu_seconds(manager)
    ours = cpu_percent(skep.pid, idle)
    theirs = 100 * (cpu_seconds(manager) - before) / idle
    note = f"of one processor, in {idle:g} s; {MANAGER}: {theirs:.1f}"
    report.add(f"processor at rest, {what}", ours, "%", note=note)
    apps, host, which = zone.requests()
    note = f"in {idle:g} s; {host} for the host as such. {which}"
    report.add(f"requests at rest, {what}", apps, "requests", target=Target("at most", 0), note=note)


def _resync(report: Report, zone: Zone, tenants: list[str]) -> None:
    """A process that knows nothing begins, and something of what it finds is not as it should be."""
    skep, cluster, pods = zone.skep, zone.cluster, len(tenants) * _OF_EACH
    say("a new process of skep begins")
    skep.kill()
    victim = _deployments(cluster)[0]["metadata"]
    where = f"--namespace={victim['namespace']}"
    cluster.kubectl("delete", "deployment", victim["name"], where)
    zone.mark()
    began = time.monotonic()
    up = skep.start()
    until(lambda: _is_there(cluster, victim["name"], where), "the deleted Deployment is there again")
    took, spent = time.monotonic() - began, cpu_seconds(skep.pid)
    requests, _, which = zone.requests()
    note = f"{pods} pods, a new process: until a Deployment that is gone is made again; API after {up:.1f} s"
    report.add("reconcile after a full resync", took, "s", target=Target("at most", _RESYNC), note=note)
    report.add("processor time of skep until then", spent, "s", note="with its own start")
    report.add("requests until then", requests, "requests", note=which)
    until(lambda: _running(skep, tenants) == pods, "all of them run again", every=1.0)
    note = "since then, with the pods of that one"
    report.add("all known to run", time.monotonic() - began, "s", note=note)


# what it is tried with


@contextmanager
def _hollow(cluster: Cluster, count: int) -> Iterator[None]:
    """Pods go to hollow nodes, and to no others."""
    real = list(cluster.nodes)
    cluster.start_hollow(count)
    cluster.kubectl("taint", "nodes", "--selector=skep.test/hollow=yes", "skep.test/hollow-")
    cluster.kubectl("cordon", *real)
    try:
        yield
    finally:
        cluster.kubectl("uncordon", *real)
        cluster.stop_hollow()


def _apply(skep: Installation, tenants: list[str]) -> list[str]:
    """All at once; answers the runs."""
    return [
        run_of(skep.http.post("/v1/apps/shop/releases", json=_app(), headers=_as(tenant)))
        for tenant in tenants
    ]


def _as(tenant: str) -> dict[str, str]:
    return {"X-Skep-Tenant": tenant}


def _app() -> Json:
    web = {
        "image": IMAGE,
        "command": ["sleep", "infinity"],
        "replicas": _OF_EACH,
        "resources": {"cpus": 0.02, "memory": 8 * 1024**2},
        "stop_grace_period": 0.0,
    }
    return {"name": "shop", "services": {"web": web}, "x_skep": {"zones": [ZONE]}}


# what is looked at


def _running(skep: Installation, tenants: list[str]) -> int:
    """Replicas, as skep knows them."""
    asked = (skep.http.get("/v1/replicas", headers=_as(tenant)).raise_for_status() for tenant in tenants)
    return sum(replica["state"] == "running" for answer in asked for replica in answer.json())


def _deployments(cluster: Cluster) -> list[Json]:
    words = ("deployments", "--all-namespaces", "--selector=app.kubernetes.io/managed-by=skep")
    found: list[Json] = cluster.get(*words)["items"]
    return found


def _is_there(cluster: Cluster, name: str, where: str) -> bool:
    return bool(cluster.kubectl("get", "deployment", name, where, "--ignore-not-found", "--output=name"))

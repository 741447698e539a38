"""Thousands of pods on hollow nodes: what skep weighs beside them, and how soon it knows all of them again.

The nodes are kubemark's: kubelets that only say they run containers, so everything above them is real, and
the machine carries many.  skep is `skep up` with the cluster as a zone; a tenant has one app of a hundred
replicas.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.bench.installation import Installation
from tests.bench.processes import cpu_percent, cpu_seconds, resident
from tests.bench.report import Report, Target
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.control_plane import MANAGER
from tests.machines import busybox_archive

_OF_EACH = 100
"""Replicas of an app."""
_PATIENCE = 1800.0
_RESYNC = 10.0
Json = dict[str, Any]


def measure(report: Report, cluster: Cluster, *, nodes: int, pods: int, idle: float) -> None:
    """Rows about so many pods, while the cluster has nothing else to do."""
    with _hollow(cluster, nodes), _skep(cluster) as skep:
        what = f"{pods} pods on {nodes} hollow nodes"
        tenants = [f"tenant-{number}" for number in range(pods // _OF_EACH)]
        _weigh(report, skep, cluster, "no pods", idle)
        for tenant in tenants:
            skep.command("tenant", "create", tenant)
        worked, began = cpu_seconds(skep.pid), time.monotonic()
        for run in _apply(skep, tenants):
            skep.wait_run(run, timeout=_PATIENCE, poll=0.5)
        took = time.monotonic() - began
        _until(lambda: _running(skep, tenants) == pods, "all of them run")
        report.add(
            f"{what}: ready", took, "s", note=f"{len(tenants)} tenants at once, {pods / took:.0f} pods/s"
        )
        spent = (cpu_seconds(skep.pid) - worked) * 1000 / pods
        report.add("processor time of skep until then", spent, "ms/pod", note="API, runs, database, cluster")
        _weigh(report, skep, cluster, what, idle)
        _resync(report, skep, cluster, tenants)
        _remove(skep, tenants)


def _weigh(report: Report, skep: Installation, cluster: Cluster, what: str, idle: float) -> None:
    """Beside the controllers of the cluster itself, which hold the same objects in memory."""
    manager = cluster.control.pid(MANAGER)
    note = f"VmRSS of `skep up`; {MANAGER}: {resident(manager):.0f}"
    report.add(f"memory, {what}", resident(skep.pid), "MB", note=note)
    before = cpu_seconds(manager)
    ours = cpu_percent(skep.pid, idle)
    theirs = 100 * (cpu_seconds(manager) - before) / idle
    note = f"of one processor, in {idle:g} s; {MANAGER}: {theirs:.1f}"
    report.add(f"processor at rest, {what}", ours, "%", note=note)


def _resync(report: Report, skep: Installation, cluster: Cluster, tenants: list[str]) -> None:
    """A process that knows nothing begins, and something of what it finds is not as it should be."""
    pods = len(tenants) * _OF_EACH
    skep.kill()
    victim = _deployments(cluster)[0]["metadata"]
    namespace = f"--namespace={victim['namespace']}"
    cluster.kubectl("delete", "deployment", victim["name"], namespace)
    began = time.monotonic()
    up = skep.start()
    _until(lambda: victim["name"] in _names(cluster), "the deleted Deployment is there again")
    took = time.monotonic() - began
    note = f"{pods} pods, a new process: until a Deployment that is gone is made again; API after {up:.1f} s"
    report.add("reconcile after a full resync", took, "s", target=Target("at most", _RESYNC), note=note)
    _until(lambda: _running(skep, tenants) == pods, "all of them run again")
    report.add(
        "all known to run", time.monotonic() - began, "s", note="since then, with the pods of that one"
    )


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


@contextmanager
def _skep(cluster: Cluster) -> Iterator[Installation]:
    with (
        registry.serve(cluster) as address,
        tempfile.TemporaryDirectory() as folder,
        Installation(
            instance="skephollow",
            networks="10.200.0.0/13",
            links="100.99.0.0/16",
            pool_size="1GiB",
            more={"SKEP_INSECURE_REGISTRIES": address},
        ) as skep,
    ):
        skep.start()
        skep.command("image", "import", str(busybox_archive(Path(folder))), "busybox:1", "--shared")
        given = ("--kubeconfig", str(cluster.kubeconfig), "--registry", f"{address}/skep")
        skep.command("zone", "add", "hollow", *given)
        _until(lambda: _leads(skep), "the cluster is led")
        yield skep


def _apply(skep: Installation, tenants: list[str]) -> list[str]:
    """All at once; answers the runs."""
    return [_run_of(skep.http.post("/v1/apps/shop/releases", json=_app(), headers=_as(t))) for t in tenants]


def _run_of(answer: httpx.Response) -> str:
    if answer.is_error:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.text}")
    run: str = answer.json()["run"]
    return run


def _as(tenant: str) -> dict[str, str]:
    return {"X-Skep-Tenant": tenant}


def _app() -> Json:
    web = {
        "image": "busybox:1",
        "command": ["sleep", "infinity"],
        "replicas": _OF_EACH,
        "resources": {"cpus": 0.02, "memory": 8 * 1024**2},
        "stop_grace_period": 0.0,
    }
    return {"name": "shop", "services": {"web": web}, "x_skep": {"zones": ["hollow"]}}


def _remove(skep: Installation, tenants: list[str]) -> None:
    """Nothing is left in the cluster."""
    for run in [_run_of(skep.http.delete("/v1/apps/shop", headers=_as(tenant))) for tenant in tenants]:
        skep.wait_run(run, timeout=_PATIENCE, poll=0.5)
    skep.command("zone", "rm", "hollow")


# what is looked at


def _running(skep: Installation, tenants: list[str]) -> int:
    """Replicas, as skep knows them."""
    asked = (skep.http.get("/v1/replicas", headers=_as(tenant)).raise_for_status() for tenant in tenants)
    return sum(replica["state"] == "running" for answer in asked for replica in answer.json())


def _leads(skep: Installation) -> bool:
    hosts = json.loads(skep.command("host", "ls", "--output=json"))
    return any(host["zone"] == "hollow" and host["state"] == "ready" for host in hosts)


def _deployments(cluster: Cluster) -> list[Json]:
    found: list[Json] = cluster.get(
        "deployments", "--all-namespaces", "--selector=app.kubernetes.io/managed-by=skep"
    )["items"]
    return found


def _names(cluster: Cluster) -> set[str]:
    return {one["metadata"]["name"] for one in _deployments(cluster)}


def _until(true: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError: in vain."""
    deadline = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_PATIENCE:.0f} s in vain until {what}")
        time.sleep(0.2)

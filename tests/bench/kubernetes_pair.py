"""`skep apply` beside `kubectl apply` of the same pods, on the same cluster.

What kubectl applies is what skep made, read from the cluster: the same template, with the same Secret and the
same image, which nodes have already; its disruption budget; and a headless Service, by which its pods are
found: with a selector, as whoever writes manifests would, where skep writes the endpoints.  Both commands
begin in a namespace that is there.  It is measured until all pods are Ready, by a watch that is the same for
both, and until the command has ended that waits for them.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.bench.kubernetes_ready import watching
from tests.bench.kubernetes_zone import IMAGE, ZONE, Zone, run_of, until
from tests.bench.report import Report, Target
from tests.cluster.kubernetes.progress import say

_RATIO = 1.1
_MANY = 300
"""Replicas that one size starts at the most, in several rounds."""
_SINGLE = 3
"""Times as many rounds of one pod: kubelet looks once a second what has begun, which then is most of it."""
_THEIRS = "bench-kubectl"
_PAIR = "app.kubernetes.io/managed-by=skep,skep.dev/app=pair"
_WEB = {"app": "web"}
_MEMORY = 32 * 1024**2
Json = dict[str, Any]


@dataclass(frozen=True)
class Took:
    """Seconds until all pods were Ready, and until the command ended that waited for them."""

    ready: float
    ended: float

    @classmethod
    def since(cls, began: float, ready: float) -> Self:
        return cls(ready - began, time.monotonic() - began)

    def __str__(self) -> str:
        return f"{self.ready:.2f} s, ended after {self.ended:.2f} s"


def measure(report: Report, zone: Zone, *, replicas: Sequence[int], rounds: int, idle: float) -> None:
    with _warm(zone), tempfile.TemporaryDirectory() as folder:
        for count in replicas:
            times = rounds * (_SINGLE if count == 1 else 1)
            _pair(report, zone, Path(folder), count, max(1, min(times, _MANY // count)), idle)


def _pair(report: Report, zone: Zone, folder: Path, count: int, rounds: int, idle: float) -> None:
    ours, theirs, asked = list[Took](), list[Took](), list[int]()
    at_rest = (0, 0, "")
    for number in range(1, rounds + 1):
        took, requests, manifests = _by_skep(zone, folder, count)
        if number == rounds:
            at_rest = zone.at_rest(idle)
        _remove(zone)
        ours.append(took)
        asked.append(requests)
        theirs.append(_by_kubectl(zone, manifests))
        say(f"{count} replicas, {number} of {rounds}: skep {ours[-1]}, kubectl {theirs[-1]}")
    _compare(report, f"{count} replicas ready", [one.ready for one in ours], [one.ready for one in theirs])
    _compare(report, f"{count} replicas ended", [one.ended for one in ours], [one.ended for one in theirs])
    report.add(f"requests for {count} replicas", statistics.median(asked), "requests")
    apps, host, which = at_rest
    note = f"in {idle:g} s; {host} for the host as such. {which}"
    report.add(
        f"requests at rest, {count} replicas", apps, "requests", target=Target("at most", 0), note=note
    )


def _compare(report: Report, what: str, ours: list[float], theirs: list[float]) -> None:
    peer = statistics.median(theirs)
    report.add(
        what,
        statistics.median(ours),
        "s",
        target=Target("at most", round(_RATIO * peer, 3)),
        peer="kubectl apply",
        peer_value=peer,
        note=f"skep apply; median of {len(ours)}; {_spread(ours)}, {_spread(theirs)}",
    )


def _by_skep(zone: Zone, folder: Path, count: int) -> tuple[Took, int, Json]:
    """With the requests until the end, and what kubectl is to apply."""
    file = folder / "compose.yaml"
    file.write_text(json.dumps(_compose(count)))
    with watching(zone.cluster, "--all-namespaces", f"--selector={_PAIR}") as watch:
        zone.mark()
        began = time.monotonic()
        zone.skep.command("apply", str(file), "--project-name", "pair", "--zone", ZONE)
        took, (requests, _, _) = Took.since(began, watch.all_ready(count)), zone.requests()
    return took, requests, _manifests(zone, count)


def _by_kubectl(zone: Zone, manifests: Json) -> Took:
    """It ends when the Deployment says that all are available."""
    kubectl, here = zone.cluster.kubectl, f"--namespace={_THEIRS}"
    kubectl("create", "namespace", _THEIRS)
    until(lambda: bool(zone.cluster.get("serviceaccounts", here)["items"]), "the namespace has its account")
    try:
        with watching(zone.cluster, here, "--selector=app=web") as watch:
            began = time.monotonic()
            kubectl("apply", here, "--filename=-", stdin=json.dumps(manifests))
            kubectl("rollout", "status", here, "deployment/web", "--timeout=900s")
            return Took.since(began, watch.all_ready(manifests["items"][-1]["spec"]["replicas"]))
    finally:
        kubectl("delete", "namespace", _THEIRS, "--timeout=900s")


def _remove(zone: Zone) -> None:
    zone.skep.remove("pair")
    until(lambda: not _of_pair(zone, "pods"), "its pods are gone")


@contextmanager
def _warm(zone: Zone) -> Iterator[None]:
    """An app beside: nodes have the image, and the tenant has its namespace."""
    answer = zone.skep.http.post("/v1/apps/beside/releases", json=_beside())
    zone.skep.wait_run(run_of(answer), timeout=900, poll=0.5)
    try:
        yield
    finally:
        zone.skep.remove("beside")


def _beside() -> Json:
    web = {"image": IMAGE, "command": ["sleep", "infinity"], "replicas": 6, "stop_grace_period": 0.0}
    return {"name": "beside", "services": {"web": web}, "x_skep": {"zones": [ZONE]}}


def _compose(count: int) -> Json:
    web = {
        "image": IMAGE,
        "command": ["sleep", "infinity"],
        "stop_grace_period": "0s",
        "deploy": {"replicas": count, "resources": {"limits": {"cpus": "0.1", "memory": str(_MEMORY)}}},
    }
    return {"services": {"web": web}}


def _manifests(zone: Zone, count: int) -> Json:
    """What skep made for the app alone, with labels of its own."""
    (found,) = _of_pair(zone, "deployments")
    budgets = _of_pair(zone, "poddisruptionbudgets")  # a service of one has none
    chosen = {"matchLabels": _WEB}
    template = found["spec"]["template"]
    template["metadata"] = {"labels": _WEB}
    spec = {"replicas": count, "selector": chosen, "template": template}
    service = {"clusterIP": "None", "selector": _WEB}
    secrets = [_plain(one) | {"type": one["type"], "data": one["data"]} for one in _of_pair(zone, "secrets")]
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            *secrets,
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
            *(_plain(one) | {"spec": one["spec"] | {"selector": chosen}} for one in budgets),
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec},
        ],
    }


def _plain(one: Json) -> Json:
    """Without what the cluster and skep have written about it."""
    return {key: one[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": one["metadata"]["name"]}}


def _of_pair(zone: Zone, kind: str) -> list[Json]:
    words = (kind, "--all-namespaces", f"--selector={_PAIR}")
    found: list[Json] = zone.cluster.get(*words)["items"]
    return found


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"

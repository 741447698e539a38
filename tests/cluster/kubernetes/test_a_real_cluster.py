"""The test cluster is a Kubernetes as others are, and what tests do to it can be undone."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.kubernetes import cgroups, control_plane, images, registry, wires
from tests.cluster.kubernetes.cluster import Cluster, planned
from tests.cluster.kubernetes.progress import Failed

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]

_PORT = 8080
_SERVES = f"hostname > /tmp/index.html; exec httpd -f -p {_PORT} -h /tmp"


@pytest.fixture
def namespace(kubernetes: Cluster) -> Iterator[str]:
    """Of the test's own; what is in it ends with it."""
    name = f"t{secrets.token_hex(4)}"
    kubernetes.kubectl("create", "namespace", name)
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def ask(kubernetes: Cluster, namespace: str) -> Callable[..., str]:
    """kubectl in that namespace."""
    return lambda *words, **more: kubernetes.kubectl("--namespace", namespace, *words, **more)


def test_both_nodes_are_ready(kubernetes: Cluster) -> None:
    assert kubernetes.ready() == {"node-1", "node-2"}


def test_pods_of_a_deployment_reach_each_other_across_nodes_and_by_their_service(
    kubernetes: Cluster, ask: Callable[..., str]
) -> None:
    ask("apply", "--filename=-", stdin=json.dumps(_list(_deployment("web"), _service("web"))))
    ask("rollout", "status", "deployment/web", "--timeout=300s")

    pods = json.loads(ask("get", "pods", "--output=json"))["items"]
    names = {pod["metadata"]["name"] for pod in pods}
    fetched = {
        pod["metadata"]["name"]: {_fetch(ask, pod, other["status"]["podIP"]) for other in pods}
        for pod in pods
    }
    service = ask("get", "service", "web", "--output=jsonpath={.spec.clusterIP}")
    by_name = _fetch(ask, pods[0], "web")
    by_service = {_fetch(ask, pods[0], service) for _ in range(20)}

    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    assert fetched == dict.fromkeys(names, names)
    assert by_service == names
    assert by_name in names


def test_commands_run_in_containers_and_logs_are_read(ask: Callable[..., str]) -> None:
    ask("apply", "--filename=-", stdin=json.dumps(_pod("one", "echo said; exec sleep infinity")))
    ask("wait", "pod/one", "--for=condition=Ready", "--timeout=300s")

    assert ask("exec", "one", "--", "sh", "-c", "echo $((6 * 7))") == "42\n"
    assert ask("logs", "one") == "said\n"


def test_kubelet_tells_through_the_api_server_what_pods_use(
    kubernetes: Cluster, ask: Callable[..., str]
) -> None:
    ask("apply", "--filename=-", stdin=json.dumps(_pod("busy", "exec sleep infinity")))
    ask("wait", "pod/busy", "--for=condition=Ready", "--timeout=300s")
    node = ask("get", "pod", "busy", "--output=jsonpath={.spec.nodeName}")

    def has_figures() -> bool:
        summary = json.loads(kubernetes.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
        found = [pod for pod in summary["pods"] if pod["podRef"]["name"] == "busy"]
        return any(
            container["memory"].get("workingSetBytes") for pod in found for container in pod["containers"]
        )

    kubernetes.until(has_figures, "kubelet has figures of the pod")


def test_a_claim_binds_grows_and_goes_with_its_data(kubernetes: Cluster, ask: Callable[..., str]) -> None:
    pod = _pod("writer", "echo kept > /data/file; exec sleep infinity", claim="data")
    ask("apply", "--filename=-", stdin=json.dumps(_list(_claim("data", "64Mi"), pod)))
    ask("wait", "pod/writer", "--for=condition=Ready", "--timeout=300s")
    volume = ask("get", "pvc", "data", "--output=jsonpath={.spec.volumeName}")
    where = next(kubernetes.layout.folder.glob(f"node-*/var/lib/volumes/{volume}"))

    ask("patch", "pvc", "data", "--patch", '{"spec": {"resources": {"requests": {"storage": "128Mi"}}}}')
    size = "--output=jsonpath={.status.capacity.storage}"
    kubernetes.until(lambda: ask("get", "pvc", "data", size) == "128Mi", "the claim has grown")
    written = (where / "file").read_text()
    ask("delete", "pod/writer", "pvc/data", "--wait=false")
    kubernetes.until(lambda: not where.exists(), "the volume is gone")

    assert written == "kept\n"


def test_nodes_pull_from_a_registry_without_tls(
    kubernetes: Cluster, ask: Callable[..., str], tmp_path: Path
) -> None:
    archive = images.archive(tmp_path)
    with registry.serve(kubernetes) as address:
        image = f"{address}/team/box:1"
        registry.push(archive, images.BUSYBOX, image)
        ask("apply", "--filename=-", stdin=json.dumps(_pod("pulled", "exec sleep infinity", image=image)))
        ask("wait", "pod/pulled", "--for=condition=Ready", "--timeout=300s")

    found = ask("get", "pod", "pulled", "--output=jsonpath={.status.containerStatuses[0].imageID}")
    assert found.startswith(f"{address}/team/box@sha256:")


def test_the_api_server_is_killed_and_started_again_and_pods_do_not_notice(
    kubernetes: Cluster, ask: Callable[..., str]
) -> None:
    ask("apply", "--filename=-", stdin=json.dumps(_pod("before", "exec sleep infinity")))
    ask("wait", "pod/before", "--for=condition=Ready", "--timeout=300s")

    kubernetes.control.kill(control_plane.APISERVER)
    with pytest.raises(Failed):
        ask("get", "pods")
    kubernetes.start(kubernetes.control)
    ask("apply", "--filename=-", stdin=json.dumps(_pod("after", "exec sleep infinity")))
    ask("wait", "pod/after", "--for=condition=Ready", "--timeout=300s")

    restarts = "--output=jsonpath={.status.containerStatuses[0].restartCount}"
    assert ask("get", "pod", "before", restarts) == "0"


def test_a_node_without_power_becomes_not_ready_and_comes_back(kubernetes: Cluster) -> None:
    node = kubernetes.nodes["node-2"]

    node.power_off()
    kubernetes.until(lambda: kubernetes.ready() == {"node-1"}, "the node is NotReady")
    kubernetes.start(node)
    kubernetes.until(lambda: kubernetes.ready() == {"node-1", "node-2"}, "the node is Ready again")

    assert node.running("kubelet")


def test_a_cluster_beside_it_that_was_interrupted_on_its_way_up_leaves_nothing(kubernetes: Cluster) -> None:
    other = Cluster(planned("beside", nodes=1))
    command = [sys.executable, "-m", "tests.cluster.kubernetes", "up", "--name=beside", "--nodes=1"]
    raising = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        kubernetes.until(
            lambda: other.nodes["node-1"].running("kubelet"), "the other's node is being started"
        )
    finally:
        raising.kill()
        raising.wait()
        pids = wires.pids(other.layout)
        other.down()

    assert pids
    # The dead are there until the machine's first process has heard of them.
    kubernetes.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "they have ended")
    assert wires.namespaces(other.layout) == []
    assert cgroups.left(other.layout.prefix) == []
    assert str(other.layout.folder) not in Path("/proc/self/mountinfo").read_text()
    assert not other.layout.folder.exists()
    assert kubernetes.ready() == {"node-1", "node-2"}


# what is applied


def _list(*things: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": things}


def _deployment(name: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": _spec(_SERVES, probe=True)}
    apart = {"labelSelector": {"matchLabels": {"app": name}}, "topologyKey": "kubernetes.io/hostname"}
    template["spec"]["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def _service(name: str) -> dict[str, Any]:
    ports = [{"port": _PORT, "targetPort": _PORT}]
    spec = {"selector": {"app": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _pod(name: str, script: str, *, image: str = images.BUSYBOX, claim: str = "") -> dict[str, Any]:
    spec = _spec(script, image=image, claim=claim)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _spec(
    script: str, *, image: str = images.BUSYBOX, claim: str = "", probe: bool = False
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": image, "command": ["sh", "-c", script]}
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 0}
    if probe:
        container["readinessProbe"] = {"httpGet": {"path": "/", "port": _PORT}, "periodSeconds": 1}
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return spec


def _claim(name: str, size: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _fetch(ask: Callable[..., str], pod: dict[str, Any], address: str) -> str:
    """What answers there, asked from within the pod."""
    name = pod["metadata"]["name"]
    return ask("exec", name, "--", "wget", "-q", "-O", "-", f"http://{address}:{_PORT}/").strip()

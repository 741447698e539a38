"""A zone on a real cluster, as somebody at a terminal has it.

One skep for the whole file, with the rights that `skep cluster rights` asks for and no others; the tests are
a story and come in this order.
"""

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.bench.installation import free_port
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.cluster import Cluster
from tests.machines import busybox_archive

from skep.providers.kubernetes import Clusters

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]

COMPOSE = """
name: shop
services:
  web:
    image: busybox:1
    command: [sh, -c, "echo VERSION > /tmp/index.html; echo here is VERSION; exec httpd -f -p 8080 -h /tmp"]
    healthcheck: {test: [CMD, wget, -q, -O, "-", "http://127.0.0.1:8080/"], interval: 1s, retries: 30}
    expose: ["8080"]
    stop_grace_period: 0s
    networks: [back]
    depends_on: [db]
    deploy: {replicas: 2}
    x-skep: {priority: low}
  db:
    image: busybox:1
    command: [sh, -c, "echo kept >> /data/log; exec sleep infinity"]
    volumes: ["data:/data"]
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.hostname == node-2, node.zone == k8s]}}
    networks: {back: {ipv4_address: FIXED}}
networks:
  back:
    ipam: {config: [{subnet: POOL}]}
volumes:
  data:
    x-skep: {size: 16m}
"""


class Someone:
    """Types commands; skep is in directories of its own."""

    def __init__(self, folder: Path, world: Cluster, address: str) -> None:
        self.folder, self.world, self.address = folder, world, address
        listen = f"127.0.0.1:{free_port()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SKEP_")},
            "SKEP_INSTANCE": f"t{secrets.token_hex(3)}",
            **{f"SKEP_{name.upper()}": str(folder / name) for name in ("data", "run", "etc", "log")},
            "SKEP_LISTEN": listen,
            "SKEP_URL": f"http://{listen}",
            "SKEP_POOL_SIZE": "1GiB",
            "SKEP_NETWORKS": "10.192.0.0/13",
            "SKEP_EDGE_HTTP": "0",
            "SKEP_EDGE_HTTPS": "0",
            "SKEP_INSECURE_REGISTRIES": address,
        }

    def type(self, *words: str, fails: bool = False, patience: float = 300) -> str:
        """What the command `skep …` prints, on both outputs."""
        done = subprocess.run(
            [Path(sys.executable).with_name("skep"), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
        )
        said = f"skep {' '.join(words)}: {done.returncode}\n{done.stdout}\n{self._log()}"
        assert (done.returncode != 0) == fails, said
        return done.stdout

    def up(self) -> None:
        self.type("up")
        token = (self.folder / "etc" / "admin.token").read_text().strip()
        self.environment |= {"SKEP_TOKEN": token}

    def kill(self) -> None:
        """As a machine that fails: it has no time for anything."""
        os.kill(int((self.folder / "run" / "skep.pid").read_text()), 9)

    def compose(self, text: str) -> str:
        """With an address of the cluster's pool where the text asks for one."""
        pool, file = self.world.layout.fixed, self.folder / "compose.yaml"
        file.write_text(text.replace("POOL", str(pool)).replace("FIXED", str(pool[9])))
        return str(file)

    def look(self, path: str) -> Any:
        """What the API says there; that takes a hundredth of what a command does, which starts Python."""
        who = {"Authorization": f"Bearer {self.environment['SKEP_TOKEN']}"}
        address = f"{self.environment['SKEP_URL']}/v1/{path}"
        return httpx.get(address, headers=who, timeout=60, trust_env=False).raise_for_status().json()

    def replicas(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.look("replicas")}

    def host(self, name: str) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {one["name"]: one for one in self.look("hosts")}
        return found[name]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < end, f"not in time: {what}\n{self._log()}"
            time.sleep(0.5)

    def namespaces(self) -> list[str]:
        """Of tenants in the cluster, with something of this skep's; those on their way out apart."""
        found = self.world.get("namespaces", "--selector=app.kubernetes.io/managed-by=skep")["items"]
        mine = [one["metadata"] for one in found if one["metadata"]["name"] in self.tenants()]
        return [meta["name"] for meta in mine if "deletionTimestamp" not in meta]

    def tenants(self) -> set[str]:
        return {f"skep-{one['id']}" for one in self.look("tenants")}

    def pods(self) -> list[dict[str, Any]]:
        return [
            pod
            for namespace in self.namespaces()
            for pod in self.world.get("pods", f"--namespace={namespace}")["items"]
        ]

    def living(self) -> set[str]:
        """The uids of the pods that are not about to end."""
        meta = [pod["metadata"] for pod in self.pods()]
        return {one["uid"] for one in meta if "deletionTimestamp" not in one}

    def clear(self) -> None:
        """What a test that failed has left in the cluster."""
        with suppress(httpx.HTTPError, KeyError):
            for urgency in {pod["spec"].get("priorityClassName") for pod in self.pods()} - {None}:
                self.world.kubectl("delete", "priorityclass", urgency, "--ignore-not-found")
            for namespace in self.namespaces():
                self.world.kubectl("delete", "namespace", namespace, "--wait=false")

    def _log(self) -> str:
        with suppress(OSError):
            lines = (self.folder / "log" / "skep.log").read_text().splitlines()[-15:]
            return "\n".join(line[:400] for line in lines)
        return ""


@pytest.fixture(scope="module")
def someone(kubernetes: Cluster) -> Iterator[Someone]:
    folder = Path(tempfile.mkdtemp(prefix="skepzone-", dir="/srv"))
    with registry.serve(kubernetes) as address:
        person = Someone(folder, kubernetes, address)
        try:
            person.up()
            yield person
        finally:
            person.clear()
            person.type("purge", "--yes")
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def account(someone: Someone, kubernetes: Cluster) -> Iterator[Path]:
    """The kubeconfig of an account that has the rights which are printed, and no others."""
    manifest = Clusters().rights()
    kubernetes.kubectl("apply", "--filename=-", stdin=manifest)
    where = ("--namespace", "skep-system", "get", "secret", "skep-token", "--output=jsonpath={.data.token}")
    someone.until(lambda: bool(kubernetes.kubectl(*where)), "the account has a token")
    document = json.loads(kubernetes.layout.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": base64.b64decode(kubernetes.kubectl(*where)).decode()}
    file = someone.folder / "kubeconfig"
    file.write_text(json.dumps(document))
    yield file
    kubernetes.kubectl("delete", "--filename=-", "--wait=false", "--ignore-not-found", stdin=manifest)


def test_a_cluster_becomes_a_zone_while_skep_runs(someone: Someone, account: Path, tmp_path: Path) -> None:
    someone.type("image", "import", str(busybox_archive(tmp_path)), "busybox:1", "--shared")

    added = someone.type(
        *("zone", "add", "k8s", "--kubeconfig", str(account), "--registry", f"{someone.address}/skep")
    )

    assert "Everything that skep does is allowed." in added
    someone.until(lambda: someone.host("k8s")["state"] == "ready", "the cluster is led")
    assert someone.host("k8s")["cpus"] > 0
    token = json.loads(account.read_text())["users"][0]["user"]["token"]
    assert token not in (someone.folder / "log" / "skep.log").read_text()
    assert token.encode() not in (someone.folder / "data" / "skep.db").read_bytes()


def test_what_a_cluster_cannot_do_is_refused_when_it_is_planned(someone: Someone) -> None:
    text = COMPOSE.replace('"data:/data"', '"/srv:/data"').replace("VERSION", "1")
    text = text.replace("FIXED", "10.9.0.9").replace("POOL", "10.9.0.0/24")

    refused = someone.type("plan", someone.compose(text), "--zone", "k8s", fails=True)

    assert "service 'db' mounts the path /srv of a host" in refused
    pool = someone.world.layout.fixed
    assert f"service 'db' asks for the address 10.9.0.9, which is not in {pool}" in refused
    assert someone.namespaces() == []


def network_marks(pod: dict[str, Any]) -> dict[str, str]:
    """The networks that it is on, and which of them leads out."""
    labels: dict[str, str] = pod["metadata"]["labels"]
    return {key: value for key, value in labels.items() if key.startswith("skep.dev/network-")}


def test_an_app_runs_in_the_cluster_and_its_services_find_each_other(someone: Someone) -> None:
    someone.type("apply", someone.compose(COMPOSE.replace("VERSION", "1")), "--zone", "k8s")

    there = someone.replicas()
    assert {one["host"] for one in there.values()} == {"k8s"}
    assert {one["state"] for one in there.values()} == {"running"}
    pods = [(pod["metadata"]["labels"]["skep.dev/service"], pod) for pod in someone.pods()]
    placed = [(name, pod["spec"]["nodeName"], pod["spec"]["priority"]) for name, pod in pods]
    assert sorted(placed) == [("db", "node-2", 0), ("web", "node-1", -10), ("web", "node-2", -10)]
    addresses = {name: pod["status"]["podIP"] for name, pod in pods}
    assert addresses["db"] == str(someone.world.layout.fixed[9])
    networks = [network_marks(pod) for pod in someone.pods()]
    assert [list(one.values()) for one in networks] == [["out"]] * 3
    assert len({name for one in networks for name in one}) == 1
    images = {pod["spec"]["containers"][0]["image"] for pod in someone.pods()}
    assert len(images) == 1
    assert images.pop().startswith(f"{someone.address}/skep@sha256:")
    web = ("exec", "--no-stdin", "shop/web-0", "--")
    assert someone.type(*web, "wget", "-q", "-O", "-", "http://web:8080/") == "1\n"
    for name in ("web", "web-1", "web.shop"):
        db = ("exec", "--no-stdin", "shop/db-0", "--")
        assert someone.type(*db, "wget", "-q", "-O", "-", f"http://{name}:8080/") == "1\n"
    assert "here is 1" in someone.type("logs", "shop/web-1")


def test_it_grows_and_is_replaced_without_its_data(someone: Someone) -> None:
    someone.type("scale", "shop", "web=3")
    grown = [name for name in someone.replicas() if name.startswith("web")]

    text = COMPOSE.replace("VERSION", "2").replace("replicas: 2", "replicas: 3")
    someone.type("apply", someone.compose(text), "--zone", "k8s")

    assert len(grown) == 3
    ask = ("exec", "--no-stdin", "shop/web-2", "--", "wget", "-q", "-O", "-", "http://web:8080/")
    assert someone.type(*ask) == "2\n"
    assert someone.type("exec", "--no-stdin", "shop/db-0", "--", "cat", "/data/log") == "kept\n"


def test_it_is_rolled_back_with_its_data(someone: Someone) -> None:
    text = COMPOSE.replace("VERSION", "2").replace("replicas: 2", "replicas: 3")
    later = someone.compose(text.replace("echo kept", "echo later"))
    log = ("exec", "--no-stdin", "shop/db-0", "--", "cat", "/data/log")
    planned = someone.type("plan", later, "--zone", "k8s")
    assert "db-0-snapshot" in planned
    assert "No snapshot" not in planned
    someone.type("apply", later, "--zone", "k8s")
    written = someone.type(*log)

    someone.type("rollback", "shop", "--with-data", "--yes")

    assert written == "kept\nlater\n"
    assert someone.type(*log) == "kept\nkept\n"
    (namespace,) = someone.namespaces()
    (claim,) = someone.world.get("pvc", f"--namespace={namespace}")["items"]
    assert claim["spec"]["dataSource"]["kind"] == "VolumeSnapshot"
    assert len(someone.world.get("volumesnapshots", f"--namespace={namespace}")["items"]) == 2


def test_a_skep_that_is_killed_finds_what_goes_on(someone: Someone) -> None:
    before = someone.living()

    someone.kill()
    someone.up()

    def well() -> bool:
        known = [(one["state"], one["health"]) for one in someone.replicas().values()]
        return set(known) <= {("running", "healthy"), ("running", "none")}

    someone.until(well, "all is known")
    assert someone.living() == before
    someone.type("zone", "set", "k8s", "--kubeconfig", str(someone.folder / "kubeconfig"))
    someone.type("scale", "shop", "web=2")
    assert {one["name"] for one in someone.replicas().values()} == {"db-0", "web-0", "web-1"}
    assert someone.living() < before


def test_what_is_in_use_stays_and_nothing_is_left_at_the_end(someone: Someone) -> None:
    assert "remove them first" in someone.type("zone", "rm", "k8s", "--yes", fails=True)
    (urgency,) = {pod["spec"].get("priorityClassName") for pod in someone.pods()} - {None}

    someone.type("rm", "shop", "--volumes", "--yes")
    someone.type("zone", "rm", "k8s", "--yes")

    someone.until(lambda: someone.namespaces() == [], "no namespace is left")
    assert urgency not in someone.world.kubectl("get", "priorityclasses", "--output=name")
    assert [one["name"] for one in json.loads(someone.type("zone", "ls", "-o", "json"))] == ["zone-1"]
    assert (
        httpx.get(f"http://{someone.address}/v2/skep/tags/list", trust_env=False).status_code
        == httpx.codes.OK
    )

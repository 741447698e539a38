"""The shop of the examples moves from this machine to a real cluster and back, from the same file.

Its images are made as the tutorial makes them, from Debian's packages, where there are none of before.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.test_a_zone import Someone
from tests.deploy import building

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.kubernetes, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
PORT = 30_800
"""One that machines and nodes can publish."""
_REGISTRY = 5001
"""Beside the one of test_a_zone."""


@pytest.fixture(scope="module")
def someone(kubernetes: Cluster) -> Iterator[Someone]:
    folder = Path(tempfile.mkdtemp(prefix="skepmove-", dir="/srv"))
    with registry.serve(kubernetes, _REGISTRY) as address:
        person = Someone(folder, kubernetes, address)
        person.environment |= {"SKEP_POOL_SIZE": "12GiB", "SHOP_PORT": str(PORT)}
        try:
            person.up()
            person.type(
                *("zone", "add", "k8s", "--kubeconfig", str(kubernetes.layout.kubeconfig)),
                *("--registry", f"{address}/skep"),
            )
            person.until(lambda: person.host("k8s")["state"] == "ready", "the cluster is led")
            yield person
        finally:
            person.clear()
            person.type("purge", "--yes")
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def file(someone: Someone) -> str:
    """The example as it is, in force on this machine."""
    shutil.copytree(ROOT / "examples" / "shop", someone.folder / "shop")
    for name, archive in building.shop().items():
        someone.type("image", "import", str(archive), f"{name}:latest")
    compose = str(someone.folder / "shop" / "compose.yaml")
    someone.type("apply", compose, "--no-build", patience=900)
    return compose


def order(someone: Someone, host: str) -> int:
    """Buy something there; answers how many orders the database has then."""
    base = f"http://{host}:{PORT}"
    with httpx.Client(base_url=base, timeout=10, trust_env=False) as client:
        someone.until(lambda: _sells(client), f"the shop answers at {base}")
        assert client.post("/api/orders", json={"product": 1}).is_success
        return int(client.get("/api/shop").json()["orders"])


def _sells(client: httpx.Client) -> bool:
    try:
        return client.get("/api/shop").is_success
    except httpx.HTTPError:
        return False


def places(someone: Someone) -> set[str]:
    return {one["host"] for one in someone.replicas().values()}


def test_the_shop_moves_to_the_cluster_and_back_with_its_orders(someone: Someone, file: str) -> None:
    node = someone.world.layout.address("node-1")
    assert order(someone, "127.0.0.1") == 1

    planned = json.loads(someone.type("app", "move", "shop", "--to-zone", "k8s", "--plan", "-o", "json"))
    someone.type("app", "move", "shop", "--to-zone", "k8s", "--yes", patience=900)

    assert [disk["name"] for disk in planned["disks"]] == ["shop_db"]
    assert {one["target"] for one in planned["replicas"]} == {"k8s"} == places(someone)
    assert order(someone, str(node)) == 2
    assert "--confirm" in someone.type("show", "shop")
    assert "up to date" in someone.type("apply", file, "--no-build", patience=900)

    someone.type("app", "move", "shop", "--back", "--keep-new-data", "--yes", patience=900)

    assert places(someone) == {"host-1"}
    assert order(someone, "127.0.0.1") == 3
    someone.type("app", "move", "shop", "--confirm", "--yes")
    left = [one["side"] for one in json.loads(someone.type("disk", "ls", "-o", "json"))]
    assert left == [""]
    someone.until(lambda: someone.pods() == [], "what is left in the cluster is collected")


def test_an_app_that_the_cluster_cannot_have_stays_as_it_is(someone: Someone, file: str) -> None:
    someone.environment["SHOP_PORT"] = "8888"
    someone.type("apply", file, "--no-build", patience=900)

    refused = someone.type("app", "move", "shop", "--to-zone", "k8s", "--yes", fails=True)

    assert "service 'web' publishes port 8888" in refused
    assert places(someone) == {"host-1"}

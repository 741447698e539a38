"""The shop of the examples moves from this machine to a real cluster and back, from the same file.

Its images are made as the tutorial makes them, from Debian's packages, where there are none of before.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.bench.installation import free_port
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.layout import CONTROL
from tests.cluster.kubernetes.test_a_zone import Someone
from tests.deploy import building

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.kubernetes, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
PORT = 30_800
"""One that machines and nodes can publish."""
NAME = "shop.example.com"
NAMED = f"services: {{web: {{x-skep: {{endpoints: [{NAME}]}}}}}}\n"
_REGISTRY = 5001
"""Beside the one of test_a_zone."""


@pytest.fixture(scope="module")
def someone(kubernetes: Cluster) -> Iterator[Someone]:
    folder = Path(tempfile.mkdtemp(prefix="skepmove-", dir="/srv"))
    with registry.serve(kubernetes, _REGISTRY) as address:
        person = Someone(folder, kubernetes, address)
        person.environment |= {
            "SKEP_POOL_SIZE": "12GiB",
            "SKEP_EDGE_HTTP": str(free_port()),
            "SHOP_PORT": str(PORT),
            "SHOP_HOST": NAME,
        }
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
    """The example as it is."""
    shutil.copytree(ROOT / "examples" / "shop", someone.folder / "shop")
    for name, archive in building.shop().items():
        someone.type("image", "import", str(archive), f"{name}:latest")
    (someone.folder / "shop" / "named.yaml").write_text(NAMED)
    return str(someone.folder / "shop" / "compose.yaml")


def apply(someone: Someone, *files: str) -> str:
    return someone.type("apply", *files, "--no-build", patience=900)


def order(someone: Someone, place: str) -> int:
    """Buy something at HOST:PORT by the name of the shop; answers how many orders the database has then."""
    names = {"Host": NAME}
    with httpx.Client(base_url=f"http://{place}", headers=names, timeout=10, trust_env=False) as client:
        someone.until(lambda: _sells(client), f"the shop answers at {place}")
        assert client.post("/api/orders", json={"product": 1}).is_success
        return int(client.get("/api/shop").json()["orders"])


def answer(place: str) -> int:
    """The status for who still asks there."""
    return httpx.get(f"http://{place}/", headers={"Host": NAME}, trust_env=False).status_code


def _sells(client: httpx.Client) -> bool:
    try:
        return client.get("/api/shop").is_success
    except httpx.HTTPError:
        return False


def places(someone: Someone) -> set[str]:
    return {one["host"] for one in someone.replicas().values()}


def checked(someone: Someone, place: str) -> str:
    """What the example's own check says, where the name of the shop leads to that address."""
    (someone.folder / ".curlrc").write_text(f'resolve = "{NAME}:80:{place}"\n')
    known = os.environ | {"CURL_HOME": str(someone.folder)}
    check = str(ROOT / "examples" / "shop" / "check.sh")
    return subprocess.check_output([check, f"http://{NAME}"], env=known, text=True)


def test_the_shop_moves_to_the_cluster_and_back_with_its_orders_and_its_name(
    someone: Someone, file: str
) -> None:
    named, by_name = (str(Path(file).with_name(name)) for name in ("named.yaml", "by-name.yaml"))
    node, entrance = (someone.world.layout.address(name) for name in ("node-1", CONTROL))
    edge = f"127.0.0.1:{someone.environment['SKEP_EDGE_HTTP']}"
    assert f"http://{edge.replace('127.0.0.1', NAME)}/\n" in apply(someone, file, named)
    assert [order(someone, place) for place in (f"127.0.0.1:{PORT}", edge)] == [1, 2]

    planned = json.loads(someone.type("app", "move", "shop", "--to-zone", "k8s", "--plan", "-o", "json"))
    someone.type("app", "move", "shop", "--to-zone", "k8s", "--yes", patience=900)

    assert [disk["name"] for disk in planned["disks"]] == ["shop_db"]
    assert {one["target"] for one in planned["replicas"]} == {"k8s"} == places(someone)
    assert "let their names lead there" in " ".join(planned["warnings"])
    assert [order(someone, place) for place in (f"{node}:{PORT}", f"{entrance}:80")] == [3, 4]
    assert answer(edge) == httpx.codes.SERVICE_UNAVAILABLE
    assert "--confirm" in someone.type("show", "shop")
    assert "up to date" in apply(someone, file, named)
    assert f"http://{NAME}/\n" in apply(someone, file, by_name)
    assert checked(someone, str(entrance)) == "shop answers: 5 orders\n"

    someone.type("app", "move", "shop", "--back", "--keep-new-data", "--yes", patience=900)

    assert places(someone) == {"host-1"}
    assert order(someone, edge) == 6
    someone.type("app", "move", "shop", "--confirm", "--yes")
    left = [one["side"] for one in json.loads(someone.type("disk", "ls", "-o", "json"))]
    assert left == [""]
    someone.until(lambda: someone.pods() == [], "what is left in the cluster is collected")
    assert answer(f"{entrance}:80") == httpx.codes.NOT_FOUND


def test_an_app_that_the_cluster_cannot_have_stays_as_it_is(someone: Someone, file: str) -> None:
    someone.environment["SHOP_PORT"] = "8888"
    apply(someone, file)

    refused = someone.type("app", "move", "shop", "--to-zone", "k8s", "--yes", fails=True)

    assert "service 'web' publishes port 8888" in refused
    assert places(someone) == {"host-1"}

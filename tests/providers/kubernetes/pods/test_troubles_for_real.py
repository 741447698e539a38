"""What is said of containers that cannot run, on a real cluster that has its reasons."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

import httpx
import pytest
from tests.providers.kubernetes.yard import ALWAYS, Yard

from skep.model.errors import NotFound, Unavailable
from skep.model.host import ContainerMount, ContainerSpec, ContainerState, FixedAddress, NodePlacement
from skep.model.ids import DiskId, Seconds, new_id
from skep.model.placement import Constraint
from skep.model.spec import HealthCheck
from skep.providers.kubernetes.pods.engine import ClusterEngine

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]
SLEEP = ("/bin/sleep", "1000")
NOBODY = "skep.test/nobody"


@contextmanager
def storage_class_without_driver(place: Yard, binding: str) -> Iterator[str]:
    name = f"t{new_id()}".lower()
    document = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": NOBODY,
        "volumeBindingMode": binding,
    }
    place.tested.kubectl("apply", "--filename=-", stdin=json.dumps(document))
    try:
        yield name
    finally:
        place.tested.kubectl("delete", "storageclass", name)


def with_disk(place: Yard, storage_class: str = "") -> ContainerSpec:
    disk = DiskId(new_id())
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"disk-{disk}"},
        "spec": spec | ({"storageClassName": storage_class} if storage_class else {}),
    }
    place.kubectl("apply", "--filename=-", stdin=json.dumps(claim))
    mount = ContainerMount(target="/data", disk=disk)
    return place.spec(*SLEEP, restart=ALWAYS, mounts=(mount,), name="shop/db-0")


async def said(engine: ClusterEngine, spec: ContainerSpec, words: str) -> str:
    """What is said of it, once these words are in it."""
    found = ""
    async with asyncio.timeout(120):
        while words not in found:
            await asyncio.sleep(0.1)
            with suppress(NotFound):  # it has not been asked for yet
                found = (await engine.inspect(spec.id)).error
    return found


async def test_a_fixed_address_is_one_pods_and_the_next_one_waits_for_it(
    engine: ClusterEngine, place: Yard
) -> None:
    """On another node: whoever called the address before finds it there."""
    address = place.tested.layout.fixed[21]
    first, second = (
        web_server(place, address, f"shop/{name}-0", node)
        for name, node in (("first", "node-1"), ("second", "node-2"))
    )
    await engine.start(first)
    await engine.wait_ready(first.id)

    starting = asyncio.create_task(engine.start(second))
    await said(engine, second, "Its fixed address is another pod's")
    had = httpx.get(f"http://{address}:8080/", trust_env=False, timeout=60).text
    await engine.remove(first.id)
    await starting
    await engine.wait_ready(second.id)

    assert had.startswith("shop-first")
    assert httpx.get(f"http://{address}:8080/", trust_env=False, timeout=60).text.startswith("shop-second")


def web_server(place: Yard, address: IPv4Address, name: str, node: str) -> ContainerSpec:
    return place.spec(
        *("/bin/sh", "-c", "echo $HOSTNAME >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"),
        restart=ALWAYS,
        fixed=FixedAddress(address=address),
        name=name,
        hostname=name.removeprefix("shop/"),
        healthcheck=HealthCheck(
            test=("CMD", "/bin/wget", "-qO", "/dev/null", "127.0.0.1:8080"), interval=Seconds(1)
        ),
        placement=NodePlacement(constraints=(Constraint("node.hostname", "==", node),)),
    )


@pytest.mark.parametrize("binding", ["WaitForFirstConsumer", "Immediate"])
async def test_a_disk_that_nobody_makes_is_named_with_who_should(
    engine: ClusterEngine, place: Yard, binding: str
) -> None:
    with storage_class_without_driver(place, binding) as name:
        spec = with_disk(place, name)
        starting = asyncio.create_task(engine.start(spec))

        found = await said(engine, spec, f"Its disk waits for {NOBODY}, which has not made it")
        state = (await engine.inspect(spec.id)).state
        await engine.remove(spec.id)
        await starting

    assert state is ContainerState.CREATED
    assert ("wait for its disk to be made" in found) == (binding == "Immediate")
    assert await engine.list() == []


async def test_a_quota_of_the_cluster_that_allows_no_pod_is_named_and_all_goes_on_once_it_is_gone(
    engine: ClusterEngine, place: Yard
) -> None:
    place.kubectl("create", "quota", "none", "--hard=pods=0")
    spec = place.spec(*SLEEP, restart=ALWAYS)
    starting = asyncio.create_task(engine.start(spec))

    found = await said(engine, spec, "exceeded quota: none")
    place.kubectl("delete", "quota", "none")
    await starting
    await engine.wait_ready(spec.id)

    assert found.startswith("The cluster does not let its pod be made: exceeded quota")
    assert (await engine.inspect(spec.id)).error == ""


async def test_what_a_health_check_answers_is_told(engine: ClusterEngine, place: Yard) -> None:
    check = HealthCheck(
        test=("CMD-SHELL", "echo the answer is no; exit 1"),
        interval=Seconds(1),
        timeout=Seconds(5),
        retries=2,
    )
    spec = place.spec(*SLEEP, restart=ALWAYS, healthcheck=check)

    await engine.start(spec)

    with pytest.raises(Unavailable, match=r"is unhealthy\. the answer is no"):
        await engine.wait_ready(spec.id)

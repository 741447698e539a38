"""A cluster is led by one worker of several, whichever lives; here it is the only host there is."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.datacentre import DataCentre, data_centre
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.members import Member
from tests.machines import busybox_archive

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]

LED = '"event": "cluster.led"'


@pytest.fixture
async def centre(kubernetes: Cluster, tmp_path: Path) -> AsyncIterator[DataCentre]:
    """Two workers, no host, and a cluster as the only zone that has one."""
    with registry.serve(kubernetes) as address:
        more = {"SKEP_INSECURE_REGISTRIES": address, "SKEP_HOST_TIMEOUT": "5s"}
        async with data_centre(tmp_path, hosts=0, workers=2, apis=1, more=more) as centre:
            body = {"kubeconfig": kubernetes.kubeconfig.read_text(), "registry": f"{address}/skep"}
            await centre.ask("POST", "/zones/k8s/cluster", json=body)
            await until_ready(centre)
            try:
                yield centre
            finally:
                await until_ready(centre)
                await ended(centre, "DELETE", "/apps/shop?volumes=true")
                await centre.ask("DELETE", "/zones/k8s")


async def test_a_release_goes_on_when_the_worker_that_leads_the_cluster_is_killed(
    centre: DataCentre, tmp_path: Path
) -> None:
    await centre.load(busybox_archive(tmp_path))
    await ended(centre, "POST", "/apps/shop/releases", json=app("1"))
    accepted = await centre.ask("POST", "/apps/shop/releases", json=app("2"))

    leader(centre).kill()
    run = await centre.run_of(accepted, timeout=200)

    assert run["state"] == "succeeded", f"{run}\n{centre.said()}"
    there: Any = await centre.ask("GET", "/replicas?app=shop")
    assert [(one["state"], one["host"]) for one in there] == [("running", "k8s")] * 2
    logs = await centre.apis[0].client.get("/apps/shop/replicas/web-0/logs")
    assert "revision 2" in logs.text


def app(revision: str) -> dict[str, Any]:
    """Of two replicas that say of which revision they are."""
    web = {
        "image": "busybox:1",
        "command": ["sh", "-c", f"echo revision {revision}; exec sleep infinity"],
        "replicas": 2,
        "stop_grace_period": 0.0,
    }
    return {"name": "shop", "services": {"web": web}}


def leader(centre: DataCentre) -> Member:
    """The one that took the lead last."""
    leading = [worker for worker in centre.workers if LED in worker.log.read_text()]
    assert leading, centre.said()
    return leading[-1]


async def until_ready(centre: DataCentre) -> None:
    deadline = time.monotonic() + 120
    state = ""
    while state != "ready":
        assert time.monotonic() < deadline, f"{state}\n{centre.said()}"
        await asyncio.sleep(0.2)
        hosts: Any = await centre.ask("GET", "/hosts")
        state = hosts[0]["state"]


async def ended(centre: DataCentre, method: str, path: str, **more: Any) -> None:
    run = await centre.run_of(await centre.ask(method, path, **more), timeout=200)
    assert run["state"] == "succeeded", f"{run}\n{centre.said()}"
